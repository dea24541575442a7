"""The page that is pasted into an issue: without a GPU, and with one that is played."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
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
from hwsearch.workflow import doctor
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
    with pytest.raises(UsageError):
        next(examine_device(tiny_supernet(), device="tpu"))


class Played(OnnxRuntimeRunner):
    """An engine on a GPU, whose results are those of ONNX Runtime, shifted by `error`."""

    captured = True
    device_memory_bytes = 64 << 20

    def __init__(self, path: Path, *, error: float, fails: str = "") -> None:
        super().__init__(path, threads=1)
        self.path, self._error, self._fails = path, error, fails

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = super().infer(inputs)
        return {
            name: value
            + self._error * np.arange(value.size, dtype=value.dtype).reshape(value.shape)
            for name, value in outputs.items()
        }

    def time_alone(self, inputs: Mapping[str, Array]) -> RunTimes:
        if self._fails:
            raise RuntimeError(self._fails)
        return RunTimes(gpu=np.full(1000, 2e-3), enqueue=np.full(1000, 1e-5))

    def profile_layers(self, inputs: Mapping[str, Array], n: int) -> tuple[LayerTime, ...]:
        return tuple(LayerTime(f"layer {number}", number / 100) for number in range(9))


def played(
    monkeypatch: pytest.MonkeyPatch,
    *,
    error: float = 0.0,
    fails: str = "",
    trtexec_ms: float | None = None,
) -> dict[str, Finding]:
    gpu = gpus.Gpu(
        name="NVIDIA L4",
        uuid="1",
        compute_capability="8.9",
        memory_bytes=24 << 30,
        cuda="13.0",
    )
    monkeypatch.setattr(doctor, "find_gpu", lambda device: gpu)
    monkeypatch.setattr(doctor, "gpu_state", lambda device: None)
    monkeypatch.setattr(doctor, "resolve_target", lambda **_: TARGET)
    trt = SimpleNamespace(version="11.4.0.106")
    monkeypatch.setattr(doctor, "load_tensorrt", lambda prefer: trt)
    monkeypatch.setattr(
        "hwsearch.runtime.tensorrt_open.open_on_gpu",
        lambda target, path: Played(path, error=error, fails=fails),
    )
    program = "trtexec" if trtexec_ms else None
    monkeypatch.setattr(doctor, "find_trtexec", lambda flavour: program)

    def run_program(name: str, engine: Path, *, shapes: Any, graph: bool) -> TrtexecResult:
        assert graph
        assert all(len(shape) > 0 for shape in shapes.values())
        return TrtexecResult("110400", trtexec_ms or 0.0, (name, f"--loadEngine={engine.name}"))

    monkeypatch.setattr(doctor, "run_trtexec", run_program)
    return {finding.title: finding for finding in examine_device(tiny_supernet())}


def test_a_gpu_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    page = played(monkeypatch)
    assert page["Verdict"].passed
    assert "cosine 1.000000" in page["Encoder: result"].lines[1]
    assert "mask IoU at worst 1.0000" in page["Decoder: result"].lines[1]
    assert page["Encoder: time"].lines[0].startswith("median 2.000 ms")
    assert page["Decoder: layers"].lines[1] == "0.080 ms layer 8"
    assert len(page["Decoder: layers"].lines) == 6
    assert "Encoder: trtexec" not in page


def test_wrong_results_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    page = played(monkeypatch, error=0.01)
    assert page["Encoder: result"].passed is False
    assert page["Decoder: result"].passed is False
    assert page["Verdict"].lines == (
        "cuda can't be relied on: see Encoder: result, Decoder: result.",
    )


def test_numbers_that_are_none_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    page = played(monkeypatch, error=float("nan"))
    assert page["Encoder: result"].passed is False
    assert page["Decoder: result"].passed is False


def test_an_engine_that_breaks_is_a_finding_and_the_page_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = played(monkeypatch, fails="CUDA error: an illegal\n memory access")
    assert page["Encoder"].lines == ("RuntimeError: CUDA error: an illegal memory access",)
    assert page["Decoder"].passed is False
    assert page["Verdict"].passed is False


@pytest.mark.parametrize(("trtexec_ms", "agrees"), [(2.1, True), (1.9, True), (1.0, False)])
def test_trtexec_has_to_agree(
    monkeypatch: pytest.MonkeyPatch, trtexec_ms: float, agrees: bool
) -> None:
    page = played(monkeypatch, trtexec_ms=trtexec_ms)
    assert page["Encoder: trtexec"].passed is agrees
    assert "version 110400" in page["Encoder: trtexec"].lines[0]
    assert page["Verdict"].passed is agrees


def test_a_gpu_that_can_not_be_used_ends_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> Target:
        raise DeviceError("tensorrt is not installed here.")

    played(monkeypatch)
    monkeypatch.setattr(doctor, "resolve_target", refuse)
    page = {finding.title: finding for finding in examine_device(tiny_supernet())}
    assert page["Device"].lines[0] == "tensorrt is not installed here."
    assert "Encoder: result" not in page
