from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hwsearch.errors import DeviceError, UsageError
from hwsearch.runtime import devices, gpus, hardware, tensorrt
from hwsearch.runtime.devices import list_devices, resolve_target

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight logical cores on four physical ones, and no GPU."""
    monkeypatch.setattr(devices, "cpu_name", lambda: "Test CPU 9000")
    monkeypatch.setattr(devices, "physical_cores", lambda: 4)
    monkeypatch.setattr(devices, "logical_cores", lambda: 8)
    gpus.find_gpus.cache_clear()
    monkeypatch.setattr(gpus, "_has_driver", lambda: False)


def has_gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The machine has these GPUs, in CUDA's order."""
    found = tuple(
        gpus.Gpu(
            name=name,
            uuid=f"0000-{number}",
            compute_capability="8.9",
            memory_bytes=1 << 34,
            cuda="13.0",
        )
        for number, name in enumerate(names)
    )
    for module in (devices, gpus):
        monkeypatch.setattr(module, "find_gpus", lambda: found)


def has_tensorrt(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """TensorRTs are installed, by the names of their modules."""

    def import_module(name: str) -> ModuleType:
        if name not in versions:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = ModuleType(name)
        module.__dict__["__version__"] = versions[name]
        return module

    monkeypatch.setattr(tensorrt.importlib, "import_module", import_module)


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
    """The command that lists and the one that profiles say the same."""
    sentence = "There is no NVIDIA driver on this machine."
    reports = [report for report in list_devices() if report.device == "cuda"]
    assert [report.runtime for report in reports] == ["tensorrt", "tensorrt-rtx"]
    assert {report.reason for report in reports} == {sentence}
    for runtime in (None, "tensorrt", "tensorrt-rtx"):
        with pytest.raises(DeviceError, match=f"^{sentence}$"):
            resolve_target(device="cuda", runtime=runtime)


def test_a_gpu_with_tensorrt_is_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpus(monkeypatch, "NVIDIA L4", "NVIDIA T4")
    has_tensorrt(monkeypatch, tensorrt="10.16.1.11", tensorrt_rtx_bindings="1.7.1.116")
    listed = [
        (report.device, report.device_name, report.runtime)
        for report in list_devices()
        if report.available and report.device != "cpu"
    ]
    assert listed == [
        ("cuda:0", "NVIDIA L4", "tensorrt"),
        ("cuda:0", "NVIDIA L4", "tensorrt-rtx"),
        ("cuda:1", "NVIDIA T4", "tensorrt"),
        ("cuda:1", "NVIDIA T4", "tensorrt-rtx"),
    ]
    target = resolve_target(device="cuda", batch=2)
    assert target.name == "cuda0-nvidia-l4-tensorrt-fp32-t1-b2"
    assert target.runtime_version == "10.16.1.11"
    other = resolve_target(device="cuda:1", runtime="tensorrt-rtx")
    assert (other.device, other.device_name) == ("cuda:1", "NVIDIA T4")
    assert (other.runtime, other.runtime_version) == ("tensorrt-rtx", "1.7.1.116")
    # What a study stored is asked for again in these words.
    assert resolve_target(device="cuda:1", runtime="tensorrt-rtx", threads=1) == other


def test_tensorrt_rtx_stands_in_where_it_alone_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_gpus(monkeypatch, "NVIDIA L4")
    has_tensorrt(monkeypatch, tensorrt_rtx_bindings="1.7.1.116")
    assert resolve_target(device="cuda").runtime == "tensorrt-rtx"
    with pytest.raises(DeviceError, match=r"^tensorrt is not installed here: pip install"):
        resolve_target(device="cuda", runtime="tensorrt")


def test_a_gpu_without_tensorrt_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpus(monkeypatch, "NVIDIA L4")
    has_tensorrt(monkeypatch)
    reasons = [report.reason for report in list_devices() if report.device == "cuda:0"]
    assert [re.search(r"\[(.*)\]", reason or "")[1] for reason in reasons] == [
        "tensorrt",
        "tensorrt-rtx",
    ]
    with pytest.raises(DeviceError, match=r"tensorrt or tensorrt-rtx is not installed here"):
        resolve_target(device="cuda")


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"device": "cuda:2"}, DeviceError, r"no cuda:2: this machine has 2 GPU\(s\)"),
        ({"threads": 4}, UsageError, "4 threads can't be used on cuda"),
        ({"batch": 0}, UsageError, "batch of 0"),
        ({"precision": "fp31"}, UsageError, "there is no such precision"),
    ],
)
def test_what_a_gpu_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, words: dict[str, str], error: type[Exception], sentence: str
) -> None:
    has_gpus(monkeypatch, "NVIDIA L4", "NVIDIA T4")
    has_tensorrt(monkeypatch, tensorrt="10.16.1.11")
    with pytest.raises(error, match=sentence):
        resolve_target(**{"device": "cuda", **words})


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


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        ("max", 9000),
        ("5000", 3500),  # of 2,000 used, 500 are files that the kernel may drop
        ("1000", 0),
        ("20000", 9000),
    ],
)
def test_memory_is_the_machines_or_the_containers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, left: int
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("active_file 70\ninactive_file 500\n")
    monkeypatch.setattr(hardware, "_MEMORY_FOLDER", tmp_path)
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=9000))
    assert hardware.available_memory_bytes() == left
    (tmp_path / "memory.max").unlink()
    assert hardware.available_memory_bytes() == 9000


def test_the_cpus_name_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cpuinfo", None)
    monkeypatch.setattr(hardware, "_name_from_proc", lambda: "From proc")
    assert hardware.cpu_name.__wrapped__() == "From proc"
