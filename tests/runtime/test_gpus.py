"""What is said of a machine's GPUs, with none of them here."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import GpuState
from hwsearch.runtime import gpus

L4 = {
    "name": "NVIDIA L4",
    "uuid": "1f-2e",
    "compute_capability": "8.9",
    "memory_bytes": 24 << 30,
    "cuda": "13.0",
}


@pytest.fixture(autouse=True)
def _fresh():
    gpus.find_gpus.cache_clear()
    yield
    gpus.find_gpus.cache_clear()


def answering(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """There is a driver, and the process that asks CUDA prints `answer`."""

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(stdout=answer if isinstance(answer, bytes) else json.dumps(answer))

    monkeypatch.setattr(gpus, "_has_driver", lambda: True)
    monkeypatch.setattr(gpus.subprocess, "run", run)


def test_gpus_are_named_in_cudas_order(monkeypatch: pytest.MonkeyPatch):
    answering(monkeypatch, {"gpus": [L4, {**L4, "name": "NVIDIA T4"}]})
    assert [gpu.name for gpu in gpus.find_gpus()] == ["NVIDIA L4", "NVIDIA T4"]
    assert gpus.find_gpu("cuda").name == gpus.find_gpu("cuda:0").name == "NVIDIA L4"
    assert gpus.find_gpu("cuda:1").name == "NVIDIA T4"
    with pytest.raises(DeviceError, match=r"There is no cuda:2: this machine has 2 GPU\(s\)"):
        gpus.find_gpu("cuda:2")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"gpus": []}, "but no GPU"),
        ({"fault": "The driver is too old."}, r"can't be used: The driver is too old\.$"),
        (b"", "look what nvidia-smi says"),
        (b"Segmentation fault", "look what nvidia-smi says"),
        ({"gpus": [{"name": "half a GPU"}]}, "look what nvidia-smi says"),
        (subprocess.CalledProcessError(-11, "python"), "look what nvidia-smi says"),
        (subprocess.TimeoutExpired("python", 120), "look what nvidia-smi says"),
    ],
)
def test_no_gpus_have_a_reason(monkeypatch: pytest.MonkeyPatch, answer: object, sentence: str):
    answering(monkeypatch, answer)
    with pytest.raises(DeviceError, match=sentence):
        gpus.find_gpus()


def test_without_a_driver_nothing_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpus, "_DRIVERS", ("libno-such-driver.so",))
    monkeypatch.setattr(gpus.subprocess, "run", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(DeviceError, match=r"^There is no NVIDIA driver on this machine\.$"):
        gpus.find_gpus()


def test_the_program_that_asks_cuda_answers_for_real():
    """With torch as it is installed: where there is no GPU, it says why."""
    found = subprocess.run(
        [sys.executable, "-P", "-c", gpus._PROBE], capture_output=True, text=True, check=True
    )
    (answer,) = json.loads(found.stdout.splitlines()[-1]).items()
    if answer[0] == "gpus":
        assert [gpus.Gpu.model_validate(gpu) for gpu in answer[1]]
    else:
        assert answer[0] == "fault"
        assert len(answer[1]) > 10
        assert "\n" not in answer[1]


NVML_FUNCTIONS = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)


def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """NVIDIA's management library with a GPU: its real functions' signatures, our answers."""
    real = pytest.importorskip("pynvml", reason="needs pip install nvidia-ml-py")
    fake = SimpleNamespace()
    for name in dir(real):
        if name.startswith(("NVML_", "nvmlClocksThrottleReason", "NVMLError")):
            setattr(fake, name, getattr(real, name))
        elif name in NVML_FUNCTIONS:
            setattr(fake, name, create_autospec(getattr(real, name)))
    fake.nvmlDeviceGetHandleByUUID.side_effect = {"GPU-1f-2e": "handle"}.__getitem__
    fake.nvmlSystemGetDriverVersion.return_value = "580.65"
    clocks = {real.NVML_CLOCK_SM: 1500, real.NVML_CLOCK_MEM: 6251}
    fake.nvmlDeviceGetClockInfo.side_effect = lambda handle, kind: clocks[kind]
    fake.nvmlDeviceGetMaxClockInfo.side_effect = lambda handle, kind: 2040
    fake.nvmlDeviceGetTemperature.side_effect = lambda handle, sensor: 81
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_the_state_of_a_gpu(monkeypatch: pytest.MonkeyPatch):
    fake = nvml(monkeypatch)
    reasons = (
        fake.nvmlClocksThrottleReasonGpuIdle  # which spoils nothing
        | fake.nvmlClocksThrottleReasonSwThermalSlowdown
        | fake.nvmlClocksThrottleReasonSwPowerCap
    )
    fake.nvmlDeviceGetCurrentClocksThrottleReasons.return_value = reasons
    answering(monkeypatch, {"gpus": [L4]})
    with gpus.gpu_gauge("cuda") as read:
        states = [read(), read()]
    assert states == 2 * [
        GpuState(
            driver="580.65",
            sm_clock_mhz=1500,
            max_sm_clock_mhz=2040,
            memory_clock_mhz=6251,
            temperature_c=81,
            throttled_by=("power cap", "heat"),
        )
    ]
    fake.nvmlInit.assert_called_once_with()
    fake.nvmlShutdown.assert_called_once_with()


def test_a_missing_management_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    answering(monkeypatch, {"gpus": [L4]})
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DeviceError, match="pip install nvidia-ml-py"), gpus.gpu_gauge("cuda"):
        pass


def test_a_management_library_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    fake = nvml(monkeypatch)
    answering(monkeypatch, {"gpus": [L4]})
    fake.nvmlDeviceGetTemperature.side_effect = fake.NVMLError(fake.NVML_ERROR_NOT_SUPPORTED)
    fake.nvmlDeviceGetCurrentClocksThrottleReasons.return_value = 0
    with gpus.gpu_gauge("cuda") as read, pytest.raises(DeviceError, match="answer: Not Supported"):
        read()
    fake.nvmlInit.side_effect = fake.NVMLError(fake.NVML_ERROR_DRIVER_NOT_LOADED)
    with pytest.raises(DeviceError, match="answer: Driver Not Loaded"), gpus.gpu_gauge("cuda"):
        pass
    assert fake.nvmlShutdown.call_count == 1


@pytest.mark.parametrize(
    "word", ["cuda:x", "cuda:", "cuda:-1", "cuda:0 ", "cuda0", "cpu", "cuda:²"]
)
def test_words_that_name_no_gpu(monkeypatch: pytest.MonkeyPatch, word: str):
    answering(monkeypatch, {"gpus": [L4]})
    assert not gpus.names_gpu(word)
    for use in (gpus.gpu_index, gpus.find_gpu):
        with pytest.raises(UsageError, match=r"There is no GPU '.*': take cuda or cuda:N"):
            use(word)


def test_who_starts_workers_has_touched_neither_cuda_nor_torch():
    """A process that has used CUDA may not fork, and importing torch would start threads."""
    program = (
        "import sys, hwsearch.profiler.nursery, hwsearch.runtime.open\n"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('torch', 'tensorrt', 'tensorrt_rtx_bindings', 'pynvml', 'onnxruntime')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
