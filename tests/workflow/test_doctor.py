"""The page that is pasted into an issue: without a GPU, and with one that is played."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tiny import tiny_supernet

from hwsearch.cli.main import run
from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import Target
from hwsearch.runtime import gpus
from hwsearch.runtime.cuda_timing import RunTimes
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.runner import Array
from hwsearch.runtime.tensorrt_profile import LayerTime
from hwsearch.runtime.trtexec import TrtexecResult
from hwsearch.workflow import doctor, doctor_engines
from hwsearch.workflow.doctor import Finding, examine_device

TARGET = Target(
    device="cuda:0", device_name="NVIDIA L4", runtime="tensorrt", runtime_version="11.4.0.106"
)


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.find_gpus.cache_clear()
    monkeypatch.setattr(gpus, "_has_driver", lambda: False)


def test_without_a_gpu_the_page_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_gpu(monkeypatch)
    assert run(["doctor", "--device", "cuda"]) == 1
    page = capsys.readouterr().out
    assert "GPU: FAILED\n    There is no NVIDIA driver on this machine.\n" in page
    assert f"torch {torch.__version__.partition('+')[0]}" in page
    assert "tensorrt" in page
    assert "Nothing was built or run on cuda" in page
    assert page.splitlines()[-2:] == [
        "Verdict: FAILED",
        "    cuda can't be relied on: see GPU, Device.",
    ]
    assert len(page.splitlines()) < 60, "one page"


def test_the_page_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_gpu(monkeypatch)
    assert run(["doctor", "--json"]) == 1
    page = json.loads(capsys.readouterr().out)
    assert page["device"] == "cuda"
    assert page["findings"][-1]["passed"] is False


def test_it_examines_gpus_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--device", "cpu"]) == 2
    assert "take cuda or cuda:N" in capsys.readouterr().err
    assert run(["doctor", "--device", "cuda:x"]) == 2
    assert "'cuda:x': take cuda or cuda:N" in capsys.readouterr().err
    for device in ("tpu", "cuda:x", "cudax"):
        with pytest.raises(UsageError):
            next(examine_device(tiny_supernet(), device=device))


class Played(OnnxRuntimeRunner):
    """An engine on a GPU, whose results are those of ONNX Runtime, shifted by `error`.

    They are those of fp32, since ONNX Runtime has no bf16 on the CPU.
    """

    captured, not_captured = True, None
    device_memory_bytes = 64 << 20

    def __init__(self, path: Path, *, error: float, fails: Exception | None = None) -> None:
        part, _, _ = path.stem.partition("-")
        super().__init__(path.with_name(f"{part}.onnx"), threads=1)
        self.path, self._error, self._fails = path, error, fails

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if "point_coords" in inputs:
            assert inputs["point_coords"].shape == (1, 2, 2), "of no other shape is the engine"
        outputs = super().infer(inputs)
        return {
            name: value
            + self._error * np.arange(value.size, dtype=value.dtype).reshape(value.shape)
            for name, value in outputs.items()
        }

    def time_alone(self, inputs: Mapping[str, Array]) -> RunTimes:
        if self._fails:
            raise self._fails
        return RunTimes(gpu=np.full(1000, 2e-3), enqueue=np.full(1000, 1e-5))

    def profile_layers(self, inputs: Mapping[str, Array], n: int) -> tuple[LayerTime, ...]:
        return tuple(LayerTime(f"layer {number}", number / 100) for number in range(9))


def played(
    monkeypatch: pytest.MonkeyPatch,
    *,
    error: float = 0.0,
    fails: Exception | None = None,
    trtexec_ms: float | None = None,
    trtexec_version: str = "110400",
    capability: str = "8.9",
    opened: list[tuple[str, Path]] | None = None,
) -> dict[str, Finding]:
    gpu = gpus.Gpu(
        name="NVIDIA L4",
        uuid="1",
        compute_capability=capability,
        memory_bytes=24 << 30,
        cuda="13.0",
    )
    monkeypatch.setattr(doctor, "find_gpu", lambda device: gpu)
    monkeypatch.setattr(gpus, "find_gpu", lambda device: gpu)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(doctor, "resolve_target", lambda **_: TARGET)
    trt = SimpleNamespace(version="11.4.0.106")
    monkeypatch.setattr(doctor, "load_tensorrt", lambda prefer: trt)

    def open_engine(target: Target, path: Path) -> Played:
        if opened is not None:
            opened.append((target.precision, path))
            assert (
                lowest_type(path)
                == {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16"}[target.precision]
            )
        return Played(path, error=error, fails=fails)

    monkeypatch.setattr("hwsearch.runtime.tensorrt_open.open_on_gpu", open_engine)
    program = None if trtexec_ms is None else "trtexec"
    for module in (doctor, doctor_engines):
        monkeypatch.setattr(module, "find_trtexec", lambda flavour: program)

    def run_program(name: str, engine: Path, *, shapes: Any, graph: bool) -> TrtexecResult:
        assert graph
        assert all(len(shape) > 0 for shape in shapes.values())
        if trtexec_version == "other":
            raise DeviceError("trtexec can't time encoder.engine: a plan of another version.")
        assert trtexec_ms is not None
        return TrtexecResult(trtexec_version, trtexec_ms, (name, f"--loadEngine={engine.name}"))

    monkeypatch.setattr(doctor_engines, "run_trtexec", run_program)
    return {finding.title: finding for finding in examine_device(tiny_supernet())}


def lowest_type(path: Path) -> str:
    """Of the weights: half of a float, where there is any."""
    types = {
        onnx.TensorProto.DataType.Name(weight.data_type)
        for weight in onnx.load(path, load_external_data=False).graph.initializer
    }
    return next(iter(types & {"FLOAT16", "BFLOAT16"}), "FLOAT")


def test_a_gpu_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, Path]] = []
    page = played(monkeypatch, opened=opened)
    assert page["Verdict"].passed
    assert [precision for precision, _ in opened] == 2 * ["fp32"] + 2 * ["fp16"] + 2 * ["bf16"]
    for precision in ("fp32", "fp16", "bf16"):
        result = page[f"{precision}: result"].lines[1]
        assert "cosine at worst 1.000000, mask IoU 1.0000 (at worst 1.0000)" in result
        assert page[f"{precision} encoder: time"].lines[0].startswith("median 2.000 ms")
        assert page[f"{precision} decoder: layers"].lines[1] == "0.080 ms layer 8"
        assert len(page[f"{precision} decoder: layers"].lines) == 6
        assert f"{precision} encoder: trtexec" not in page
    assert page["Clocks"].lines[0].endswith("is not installed: pip install nvidia-ml-py.")


def test_bf16_is_not_asked_of_a_gpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    page = played(monkeypatch, capability="7.5")
    assert page["bf16"] == Finding(
        "bf16", None, ("Not tried: compute capability 7.5 has no bf16.",)
    )
    assert page["fp16: result"].passed
    assert "bf16: result" not in page
    assert page["Verdict"].passed


def test_wrong_results_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    page = played(monkeypatch, error=0.01)
    assert "the embeddings' cosine falls to" in page["fp32: result"].lines[1]
    assert page["Verdict"].lines == (
        "cuda can't be relied on: see fp32: result, fp16: result, bf16: result.",
    )


def test_numbers_that_are_none_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    page = played(monkeypatch, error=float("nan"))
    assert page["fp32: result"].passed is False
    assert page["fp32: result"].lines[1].endswith("it gives infinite or undefined numbers")


@pytest.mark.parametrize("kind", [RuntimeError, OverflowError])
def test_an_engine_that_breaks_is_a_finding_and_the_page_goes_on(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    page = played(monkeypatch, fails=kind("CUDA error: an illegal\n memory access"))
    said = f"{kind.__name__}: CUDA error: an illegal memory access"
    assert page["fp32 encoder"].lines == (said,)
    assert page["bf16 decoder"].passed is False
    assert page["Verdict"].passed is False


@pytest.mark.parametrize(("trtexec_ms", "agrees"), [(2.1, True), (1.9, True), (1.0, False)])
def test_trtexec_has_to_agree(
    monkeypatch: pytest.MonkeyPatch, trtexec_ms: float, agrees: bool
) -> None:
    page = played(monkeypatch, trtexec_ms=trtexec_ms)
    assert page["fp16 encoder: trtexec"].passed is agrees
    assert "version 110400" in page["fp16 encoder: trtexec"].lines[0]
    assert page["Verdict"].passed is agrees


@pytest.mark.parametrize(
    ("version", "ms", "said"),
    [
        ("other", 1.0, "a plan of another version."),
        ("101303", 1.0, "nothing to hold against tensorrt 11.4.0.106"),
        ("110400", 0.0, "nothing to hold against"),
    ],
)
def test_trtexec_that_can_not_be_compared_with_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, version: str, ms: float, said: str
) -> None:
    page = played(monkeypatch, trtexec_ms=ms, trtexec_version=version)
    assert page["fp32 encoder: trtexec"].passed is None
    assert said in page["fp32 encoder: trtexec"].lines[0]
    assert page["Verdict"].passed


def test_a_gpu_that_can_not_be_used_ends_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> Target:
        raise DeviceError("tensorrt is not installed here.")

    played(monkeypatch)
    monkeypatch.setattr(doctor, "resolve_target", refuse)
    page = {finding.title: finding for finding in examine_device(tiny_supernet())}
    assert page["Device"].lines[0] == "tensorrt is not installed here."
    assert "fp32: result" not in page
