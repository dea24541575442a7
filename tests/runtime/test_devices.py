from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsearch.errors import DeviceError, UsageError
from hwsearch.runtime import devices, hardware
from hwsearch.runtime.devices import list_devices, resolve_target
from hwsearch.runtime.open import open_runner

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight logical cores on four physical ones, and no GPU."""
    monkeypatch.setattr(devices, "cpu_name", lambda: "Test CPU 9000")
    monkeypatch.setattr(devices, "physical_cores", lambda: 4)
    monkeypatch.setattr(devices, "logical_cores", lambda: 8)
    monkeypatch.setattr(devices, "gpu_names", no_driver)


def no_driver() -> tuple[str, ...]:
    raise DeviceError("There is no NVIDIA driver on this machine.")


def test_cpu_means_onnxruntime_on_the_physical_cores() -> None:
    target = resolve_target(device="cpu")
    assert (target.runtime, target.precision, target.threads, target.batch) == (
        "onnxruntime",
        "fp32",
        4,
        1,
    )
    assert target.name == "cpu-test-cpu-9000-onnxruntime-fp32-t4-b1"
    assert target.runtime_version.count(".") >= 1


def test_what_is_asked_for_is_kept() -> None:
    target = resolve_target(device="cpu", precision="int8", threads=8, batch=2)
    assert (target.precision, target.threads, target.batch) == ("int8", 8, 2)
    assert target.name.endswith("-onnxruntime-int8-t8-b2")


def test_torch_is_a_runtime_of_the_cpu() -> None:
    target = resolve_target(device="cpu", runtime="torch")
    assert (target.runtime, target.precision) == ("torch", "fp32")


def test_each_runtime_lists_the_precisions_that_can_be_asked_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capabilities = frozenset({"FP32", "BF16", "INT8"})
    monkeypatch.setattr("hwsearch.runtime.openvino.cpu_capabilities", lambda: capabilities)
    listed = {report.runtime: report.precisions for report in list_devices() if report.available}
    openvino = {"openvino": ("fp32", "bf16")} if HAS_OPENVINO else {}
    assert listed == {"onnxruntime": ("fp32", "int8"), **openvino, "torch": ("fp32",)}
    for runtime, precisions in listed.items():
        for precision in precisions:
            target = resolve_target(device="cpu", runtime=runtime, precision=precision)
            assert (target.runtime, target.precision) == (runtime, precision)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"device": "gpu"}, "device 'gpu': take cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "device 'cuda:x'"),
        ({"device": "cpu", "runtime": "tensorrt"}, "take onnxruntime or openvino or torch"),
        ({"device": "cuda", "runtime": "onnxruntime"}, "take tensorrt or tensorrt-rtx"),
        ({"device": "cpu", "precision": "fp16"}, "'fp16' can't be used.*take fp32 or int8"),
        (
            {"device": "cpu", "runtime": "torch", "precision": "int8"},
            "'int8' can't be used with torch: take fp32",
        ),
        ({"device": "cpu", "precision": "fp31"}, "there is no such precision"),
        ({"device": "cpu", "threads": 0}, "may use 1 to 8"),
        ({"device": "cpu", "threads": 9}, "may use 1 to 8"),
        ({"device": "cpu", "batch": 0}, "batch of 0"),
    ],
)
def test_words_that_are_not_allowed(words: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve_target(**words)


def test_cuda_without_a_driver() -> None:
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        resolve_target(device="cuda")


def test_cuda_with_a_gpu_says_what_this_version_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_names", lambda: ("NVIDIA L4", "NVIDIA T4"))
    with pytest.raises(DeviceError, match=r"NVIDIA T4.*not part of this version yet"):
        resolve_target(device="cuda:1")
    with pytest.raises(DeviceError, match="no cuda:2"):
        resolve_target(device="cuda:2")
    report = next(report for report in list_devices() if report.device == "cuda")
    assert report.device_name == "NVIDIA L4"
    assert not report.available


@pytest.mark.skipif(not HAS_OPENVINO, reason="the openvino extra is not installed")
@pytest.mark.parametrize("capabilities", [{"FP32", "BF16"}, {"FP32", "INT8"}])
def test_openvino_offers_bf16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: set[str]
) -> None:
    monkeypatch.setattr("hwsearch.runtime.openvino.cpu_capabilities", lambda: capabilities)
    report = next(report for report in list_devices() if report.runtime == "openvino")
    assert ("bf16" in report.precisions) == ("BF16" in capabilities)
    if "BF16" in capabilities:
        target = resolve_target(device="cpu", runtime="openvino", precision="bf16")
        assert target.precision == "bf16"
    else:
        with pytest.raises(DeviceError, match="no bf16 instructions: take --precision fp32"):
            resolve_target(device="cpu", runtime="openvino", precision="bf16")


def test_a_missing_extra_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "openvino" or None)
    report = next(report for report in list_devices() if report.runtime == "openvino")
    assert report.reason == 'openvino is not installed: pip install "hwsearch[openvino]".'
    with pytest.raises(DeviceError, match="not installed"):
        resolve_target(device="cpu", runtime="openvino")


def test_reports_say_what_works_or_why_not() -> None:
    reports = list_devices()
    assert reports[0].available
    assert [report.available for report in reports] == sorted(
        (report.available for report in reports), reverse=True
    )
    for report in reports:
        assert report.available == (report.reason is None) == bool(report.precisions)


def test_a_target_without_a_runner_is_refused(tmp_path: Path) -> None:
    target = resolve_target(device="cpu").model_copy(update={"runtime": "tensorrt"})
    with pytest.raises(DeviceError, match="tensorrt can't run files"):
        open_runner(target, tmp_path / "model.onnx")


def fake_cpus(folder: Path, places: list[tuple[int, int]]) -> Path:
    for cpu, (package, core) in enumerate(places):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{core}\n")
    return folder


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [
        ([0, 1, 2, 3], "max 100000", (2, 4)),  # two hyper-threads a core
        ([0, 1], "max 100000", (1, 2)),  # pinned to one core
        ([0, 2], "max 100000", (2, 2)),
        ([0, 1, 2, 3], "150000 100000", (2, 2)),  # a container's one and a half cores
        ([0, 1, 2, 3], "50000 100000", (1, 1)),
    ],
)
def test_cores_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    affinity: list[int],
    quota: str,
    cores: tuple[int, int],
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    cpus = fake_cpus(tmp_path / "cpus", [(0, 0), (0, 0), (0, 1), (0, 1)])
    monkeypatch.setattr(hardware, "_CPU_FILES", cpus)
    monkeypatch.setattr(hardware, "_QUOTA_FILE", tmp_path / "cpu.max")
    monkeypatch.setattr(hardware, "_affinity", lambda: affinity)
    assert (hardware.physical_cores(), hardware.logical_cores()) == cores


class FakeNvml:
    """NVIDIA's management library, as far as it is asked."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, driver: bool, names: list[str]) -> None:
        self._driver, self._names = driver, names
        self.nvmlDeviceGetCount: Callable[[], int] = lambda: len(names)
        self.nvmlDeviceGetHandleByIndex: Callable[[int], int] = lambda index: index
        self.nvmlDeviceGetName: Callable[[int], str] = lambda handle: names[handle]
        self.nvmlShutdown: Callable[[], None] = lambda: None

    def nvmlInit(self) -> None:  # noqa: N802 - the library's own name
        if not self._driver:
            raise self.NVMLError


def test_gpus_are_named_in_the_drivers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(driver=True, names=["L4", "T4"]))
    assert hardware.gpu_names() == ("L4", "T4")


@pytest.mark.parametrize(
    ("nvml", "sentence"),
    [
        (FakeNvml(driver=False, names=[]), "no NVIDIA driver"),
        (FakeNvml(driver=True, names=[]), "but no GPU"),
        (None, "pip install nvidia-ml-py"),
    ],
)
def test_no_gpus_have_a_reason(
    monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None, sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with pytest.raises(DeviceError, match=sentence):
        hardware.gpu_names()


def test_the_cpus_name_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cpuinfo", None)
    monkeypatch.setattr(hardware, "_name_from_proc", lambda: "From proc")
    assert hardware.cpu_name.__wrapped__() == "From proc"
