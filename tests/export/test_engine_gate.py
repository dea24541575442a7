"""Engines are held against the fp32 files on a GPU that runs them; ONNX Runtime plays the GPU."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch
from segment_anything.modeling import Sam
from tiny import GEOMETRY, MIXED, tiny_supernet

from hwsearch.errors import DeviceError, ExportError
from hwsearch.export import bundle as bundle_module
from hwsearch.export import engine_gate
from hwsearch.export.bundle import write_bundle
from hwsearch.export.engines import EngineOptions, runs_on
from hwsearch.export.gate import Probe
from hwsearch.export.manifest import read_manifest
from hwsearch.export.parity import drawn_images
from hwsearch.export.precision import PrecisionOptions
from hwsearch.runtime.gpus import Gpu
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.tensorrt import TensorRT
from hwsearch.runtime.tensorrt_runner import TensorRtRunner

ADA = Gpu(name="NVIDIA L4", uuid="0", compute_capability="8.9", memory_bytes=1, cuda="12.8")
ARCHS = SimpleNamespace(__members__=dict.fromkeys(["SM75", "SM86", "SM89"]))
RTX = TensorRT(
    module=SimpleNamespace(ComputeCapability=ARCHS), flavour="tensorrt-rtx", version="1.7"
)
OPTIONS = EngineOptions(trt=RTX, device=1)


@pytest.fixture(scope="module")
def sam() -> Sam:
    return tiny_supernet().extract(MIXED)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU `cuda:1`; the numbers of those that engines were loaded on."""
    used: list[int] = []

    def load(path: Path, *, trt: TensorRT, device: torch.device) -> OnnxRuntimeRunner:
        assert trt is RTX
        used.append(device.index)
        return OnnxRuntimeRunner(path, threads=1)

    runner = create_autospec(TensorRtRunner, side_effect=load)
    monkeypatch.setattr(engine_gate, "TensorRtRunner", runner)
    monkeypatch.setattr(engine_gate, "find_gpu", {"cuda:1": ADA}.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    return used


def built(*, encoder: Sam, decoder: Sam) -> Any:
    """A build whose engines compute what these models do."""

    def build(folder: Path, **_: object) -> tuple[()]:
        export_encoder(encoder, folder / "encoder.engine")
        export_decoder(decoder, folder / "decoder.engine")
        return ()

    return build


def export(sam: Sam, out: Path, options: EngineOptions, **more: Any) -> Any:
    written = write_bundle(out, sam=sam, geometry=GEOMETRY, subnet=MIXED, engines=options, **more)
    return read_manifest(written)


def test_the_verdict_is_in_the_manifest(
    sam: Sam, tmp_path: Path, gpu: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bundle_module, "build_engines", built(encoder=sam, decoder=sam))
    images = drawn_images(1)
    manifest = export(
        sam,
        tmp_path / "b",
        OPTIONS,
        precision=PrecisionOptions(precision="fp16", probes=[Probe(image) for image in images]),
    )
    assert gpu == [1, 1]
    assert manifest.engine_parity.gpu == "NVIDIA L4"
    assert manifest.engine_parity.parity.images == 1
    assert manifest.engine_parity.parity.mask_iou_mean > 0.999
    assert manifest.precision.judge.endswith("the engines passed the same limits on NVIDIA L4")
    assert "no GPU" not in manifest.precision.judge


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.usefixtures("gpu")
def test_engines_that_give_other_masks_are_refused(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
):
    other = tiny_supernet(seed=9).extract(MIXED)
    models = {"encoder": sam, "decoder": sam, part: other}
    monkeypatch.setattr(bundle_module, "build_engines", built(**models))
    with pytest.raises(ExportError, match=r"On NVIDIA L4 the engines don't .*: take a higher"):
        export(sam, tmp_path / "b", OPTIONS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        replace(OPTIONS, gpu_archs=("SM86",)),
        replace(OPTIONS, max_prompts=4),
        replace(OPTIONS, max_points=2),
    ],
)
def test_engines_that_can_not_run_here_are_not_judged(
    sam: Sam, tmp_path: Path, gpu: list[int], monkeypatch: pytest.MonkeyPatch, options: Any
):
    monkeypatch.setattr(bundle_module, "build_engines", built(encoder=sam, decoder=sam))
    assert export(sam, tmp_path / "b", options).engine_parity is None
    assert gpu == []


@pytest.mark.usefixtures("gpu")
def test_without_a_gpu_nothing_is_judged(sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none(device: str) -> Gpu:
        raise DeviceError("There is no NVIDIA driver on this machine.")

    monkeypatch.setattr(engine_gate, "find_gpu", none)
    monkeypatch.setattr(bundle_module, "build_engines", built(encoder=sam, decoder=sam))
    assert export(sam, tmp_path / "b", OPTIONS).engine_parity is None


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ("8.9", (), True),
        ("7.5", (), False),
        ("7.5", ("SM75",), True),
        ("9.0", (), False),
        ("8.9", ("SM86",), False),
    ],
)
def test_which_gpu_runs_engines_of_tensorrt_rtx(
    capability: str, archs: tuple[str, ...], runs: bool
):
    chip = ADA.model_copy(update={"compute_capability": capability})
    assert runs_on(replace(OPTIONS, gpu_archs=archs), chip) == runs
