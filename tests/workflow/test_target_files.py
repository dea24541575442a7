"""A target is timed on its own files, and a bundle never carries the latency of others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto
from tiny import tiny_supernet

from hwsearch.errors import UsageError
from hwsearch.export import engines
from hwsearch.export.engines import EngineOptions
from hwsearch.progress import SilentProgress
from hwsearch.records import Target
from hwsearch.results import SearchResult
from hwsearch.runtime.gpus import Gpu
from hwsearch.runtime.model_files import reads_plain_onnx
from hwsearch.runtime.onnx_export import read_metadata
from hwsearch.runtime.tensorrt import Flavour, TensorRT
from hwsearch.workflow import export
from hwsearch.workflow.subjects import exported
from hwsearch.workflow.workspace import Workspace


def target(runtime: str, precision: str) -> Target:
    device = "cuda:0" if runtime == "tensorrt" else "cpu"
    return Target(
        device=device, device_name="x", runtime=runtime, runtime_version="1", precision=precision
    )


@pytest.mark.parametrize(
    ("searched", "engines_in", "sentence"),
    [
        (target("onnxruntime", "int8"), "fp32", "int8 as ONNX Runtime.*no engine"),
        (target("torch", "fp32"), None, "torch in fp32, .*ONNX in fp32"),
        (target("tensorrt", "fp16"), None, "--format tensorrt --precision fp16"),
        (target("tensorrt", "fp16"), "fp32", "engines in fp32.*--precision fp16"),
        (target("tensorrt", "fp32"), "bf16", "engines in bf16.*--precision fp32"),
    ],
)
def test_a_study_of_other_files_is_refused(
    searched: Target,
    engines_in: str | None,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supernet = tiny_supernet()
    result = SearchResult.model_construct(
        supernet_id=supernet.id,
        weights_digest=supernet.weights_digest(),
        target=searched,
        pick=None,
        precisions=(),
    )
    monkeypatch.setattr(export, "load_study", lambda *_: SimpleNamespace(result=result))
    with pytest.raises(UsageError, match=sentence):
        export.export_pick(
            supernet,
            "s",
            workspace=Workspace(tmp_path),
            out=tmp_path / "bundle",
            precision=engines_in or "fp32",
            engines=EngineOptions() if engines_in else None,
        )
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


@pytest.mark.parametrize(
    ("half", "element_type"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)]
)
def test_an_engine_of_low_precision_is_built_from_such_files(half: str, element_type: int) -> None:
    supernet = tiny_supernet()
    config = supernet.space.smallest
    with exported(supernet, [config], target("tensorrt", half), SilentProgress(), kept={}) as (
        subject,
    ):
        for path in (subject.encoder, subject.decoder):
            assert read_metadata(path)["precision"] == f"{half}, norms fp32"
            weights = onnx.load(path).graph.initializer
            assert element_type in {weight.data_type for weight in weights}


ADA = Gpu(name="NVIDIA L4", uuid="0", compute_capability="8.9", memory_bytes=1, cuda="12.8")
ARCHS = SimpleNamespace(__members__={"SM86": 0, "SM89": 1})


class Seen(Exception):  # noqa: N818 - it ends the export where the options are known
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EngineOptions]:
    """What `export_pick` has engines built with for a study on the second GPU, in batches of 4."""
    studied = target("tensorrt-rtx", "fp32").model_copy(update={"device": "cuda:1", "batch": 4})
    supernet = tiny_supernet()
    result = SearchResult.model_construct(
        supernet_id=supernet.id,
        weights_digest=supernet.weights_digest(),
        target=studied,
        pick=None,
        precisions=(),
    )
    seen: list[EngineOptions] = []

    def ready(options: EngineOptions) -> EngineOptions:
        seen.append(engines.ready(options))
        raise Seen

    def load(*, prefer: Flavour | None = None) -> TensorRT:
        module = SimpleNamespace(ComputeCapability=ARCHS)
        return TensorRT(module=module, flavour=prefer or "tensorrt", version="1")

    monkeypatch.setattr(export, "load_study", lambda *_: SimpleNamespace(result=result))
    monkeypatch.setattr(export, "resolve_target", lambda **_: studied)
    monkeypatch.setattr(export, "ready", ready)
    monkeypatch.setattr(engines, "load_tensorrt", load)
    monkeypatch.setattr(engines, "find_gpu", {"cuda:1": ADA}.__getitem__)
    return seen


def export_with(folder: Path, **options: Any) -> None:
    export.export_pick(
        tiny_supernet(),
        "s",
        workspace=Workspace(folder),
        out=folder / "bundle",
        engines=EngineOptions(**options),
    )


def test_engines_of_a_study_on_a_gpu_can_be_timed(
    asked: list[EngineOptions], tmp_path: Path
) -> None:
    with pytest.raises(Seen):
        export_with(tmp_path, gpu_archs=("SM86", "SM89"), max_batch=2)
    (options,) = asked
    assert options.trt is not None
    assert options.trt.flavour == "tensorrt-rtx", "though TensorRT is here too"
    assert (options.device, options.batch, options.max_batch) == (1, 4, 4)
    with pytest.raises(Seen):
        export_with(tmp_path, max_batch=8)
    assert (asked[-1].batch, asked[-1].max_batch) == (4, 8)


def test_engines_that_the_gpu_of_the_study_can_not_load_are_refused(
    asked: list[EngineOptions], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"for SM86 can't be timed on NVIDIA L4.*--gpu-arch sm89"):
        export_with(tmp_path, gpu_archs=("SM86",))
    assert not asked
