"""A target is timed on its own files, and a bundle never carries the latency of others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import tiny_supernet

from hwsearch.errors import UsageError
from hwsearch.progress import SilentProgress
from hwsearch.records import Target
from hwsearch.runtime.model_files import reads_plain_onnx
from hwsearch.runtime.onnx_export import read_metadata
from hwsearch.workflow import export
from hwsearch.workflow.timing import exported
from hwsearch.workflow.workspace import Workspace


def target(runtime: str, precision: str) -> Target:
    return Target(
        device="cpu", device_name="x", runtime=runtime, runtime_version="1", precision=precision
    )


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "int8"), ("torch", "fp32")])
def test_a_study_of_other_files_is_refused(
    runtime: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supernet = tiny_supernet()
    result = SimpleNamespace(
        supernet_id=supernet.id,
        weights_digest=supernet.weights_digest(),
        target=target(runtime, precision),
        pick=None,
    )
    monkeypatch.setattr(export, "load_study", lambda *_: SimpleNamespace(result=result))
    with pytest.raises(UsageError, match=rf"{runtime} in {precision}, .*ONNX in fp32"):
        export.export_pick(supernet, "s", workspace=Workspace(tmp_path), out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "fp32"), ("openvino", "bf16")])
def test_precisions_chosen_on_opening_need_no_files_of_their_own(
    runtime: str, precision: str
) -> None:
    assert reads_plain_onnx(target(runtime, precision))


def test_an_int8_target_is_timed_on_int8_files() -> None:
    supernet = tiny_supernet()
    config = supernet.space.smallest
    int8 = target("onnxruntime", "int8")
    with exported(supernet, [config], int8, SilentProgress()) as (subject,):
        assert read_metadata(subject.encoder)["precision"] == "int8"
        assert "precision" not in read_metadata(subject.decoder)
    with exported(supernet, [config], target("openvino", "bf16"), SilentProgress()) as (subject,):
        assert "precision" not in read_metadata(subject.encoder)
