"""How the package runs engines, with the real classes of one TensorRT.

`test_execution.py` runs this file once for each of them, in a process of its own, since one process
can't hold two. The environment says which: HWSEARCH_TEST_BINDINGS is the module, found on the path.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from fake_tensorrt import MOST, WIDTH, fake, refusing, write_plan
from gpu_machine import Machine

from hwsearch.errors import DeviceError, UsageError
from hwsearch.runtime.cuda_timing import summarise_runs
from hwsearch.runtime.runner import DeviceMemory, TensorSpec
from hwsearch.runtime.tensorrt import TensorRT
from hwsearch.runtime.tensorrt_engine import load_engine
from hwsearch.runtime.tensorrt_log import _process_logger
from hwsearch.runtime.tensorrt_runner import TensorRtRunner

NAME = os.environ["HWSEARCH_TEST_BINDINGS"]
REAL = importlib.import_module(NAME)
CPU = torch.device("cpu")  # whose memory stands in for the GPU's


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    machine.install(monkeypatch)
    return machine


@pytest.fixture
def trt(machine: Machine) -> TensorRT:
    return fake(REAL, machine, "tensorrt-rtx" if "rtx" in NAME else "tensorrt")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return write_plan(tmp_path / "tiny.engine")


@pytest.fixture
def runner(plan: Path, trt: TensorRT):
    with TensorRtRunner(plan, trt=trt, device=CPU) as opened:
        yield opened


def tensors(rows: int = 3) -> dict[str, np.ndarray]:
    x = np.random.default_rng(rows).normal(size=(rows, WIDTH)).astype("float32")
    return {"x": x, "scale": np.array([1.5], "float16")}


def expected(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = np.maximum(2 * inputs["x"], 0) * inputs["scale"].astype("float32")
    return {"total": rows.sum(-1), "rows": rows}


def test_the_version_is_the_one_that_was_asked_for():
    assert REAL.__version__.startswith(os.environ["HWSEARCH_TEST_VERSION"])


def test_a_method_that_this_version_lacks_fails(trt: TensorRT, plan: Path):
    engine = load_engine(plan, trt=trt).engine
    for name in ("get_binding_name", "max_batch_size"):  # of TensorRT 8
        with pytest.raises(AttributeError):
            getattr(engine, name)


def test_specs_name_shape_and_type(runner: TensorRtRunner):
    assert runner.inputs == (
        TensorSpec("x", (None, WIDTH), "float32"),
        TensorSpec("scale", (1,), "float16"),
    )
    assert [(spec.name, spec.shape) for spec in runner.outputs] == [
        ("total", (None,)),
        ("rows", (None, WIDTH)),
    ]


@pytest.mark.parametrize("can_capture", [True, False])
def test_outputs_are_those_of_the_arithmetic(
    runner: TensorRtRunner, machine: Machine, can_capture: bool
):
    machine.can_capture = can_capture
    for rows in (1, 3, MOST, 3):
        inputs = tensors(rows)
        outputs = runner.infer(inputs)
        for name, value in expected(inputs).items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-6)
        assert runner.captured == can_capture


def test_new_values_of_the_same_shape_reach_the_graph(runner: TensorRtRunner, machine: Machine):
    first = runner.infer(tensors())["rows"]
    kept = first.copy()
    other = {**tensors(), "x": tensors()["x"] + 1}
    np.testing.assert_allclose(runner.infer(other)["rows"], expected(other)["rows"], rtol=1e-6)
    np.testing.assert_array_equal(first, kept)
    assert machine.captures == 1


def test_another_shape_is_captured_anew(runner: TensorRtRunner, machine: Machine):
    for rows in (3, 3, 2, 3):
        runner.infer(tensors(rows))
    assert machine.captures == 3


def test_arrays_that_are_not_contiguous_are_taken(runner: TensorRtRunner):
    inputs = tensors(4)
    strided = {**inputs, "x": np.asfortranarray(inputs["x"])[::-1]}
    np.testing.assert_allclose(
        runner.infer(strided)["total"], expected(strided)["total"], rtol=1e-6
    )


@pytest.mark.parametrize("can_capture", [True, False])
def test_latencies_are_those_of_the_gpu(
    runner: TensorRtRunner, machine: Machine, can_capture: bool
):
    machine.can_capture = can_capture
    seconds = runner.time(tensors(), 5)
    assert (seconds.shape, seconds.dtype) == ((5,), np.float64)
    waited = machine.replay_s if can_capture else machine.enqueue_s
    np.testing.assert_allclose(seconds, [machine.run_s + waited] + 4 * [machine.run_s])
    assert machine.most_flying == 2
    assert machine.replays == (5 if can_capture else 0)
    assert machine.flying == 0


def test_alone_an_engine_is_timed_as_long_as_trtexec_does(runner: TensorRtRunner, machine: Machine):
    machine.run_s = 0.5
    found = runner.time_alone(tensors(), clock=machine.clock)
    assert found.gpu.size in (10, 11)
    assert summarise_runs(found).median_ms == pytest.approx(500)


def test_a_failed_capture_leaves_nothing_behind(
    runner: TensorRtRunner, machine: Machine, trt: TensorRT
):
    before = machine.current_stream = object()
    machine.can_capture = False
    runner.infer(tensors())
    assert machine.current_stream is before
    assert len(machine.streams) == 2, "a stream whose capture failed is not used again"
    assert runner.not_captured == "operation failed due to a previous error during capture"
    machine.can_capture = True
    runner.infer(tensors(2))
    assert (runner.captured, runner.not_captured) == (True, None)


def test_a_gpu_that_breaks_in_a_capture_is_a_sentence(runner: TensorRtRunner, machine: Machine):
    machine.can_capture, machine.breaks_in_capture = False, "an illegal memory access"
    with pytest.raises(DeviceError, match=r"failed when .*captured.*: an illegal memory access\."):
        runner.infer(tensors())


def test_closing_waits_for_what_is_in_flight(runner: TensorRtRunner, machine: Machine):
    with runner:
        runner.infer(tensors())
        machine.launch(lambda: None)
    assert machine.flying == 0
    machine.broken = "the GPU is lost"
    with runner:
        pass  # whose error would hide the one that ended the runs


def test_layers_are_profiled_apart(runner: TensorRtRunner, machine: Machine):
    layers = runner.profile_layers(tensors(), 4)
    assert [(layer.name, layer.mean_ms) for layer in layers] == [("double", 0.25), ("scale", 0.75)]
    before = machine.replays
    runner.time(tensors(), 2)
    assert machine.replays == before + 2, "the profiler is not in the runs that are timed"


def test_memory_is_what_loading_took(runner: TensorRtRunner):
    assert isinstance(runner, DeviceMemory)
    assert runner.device_memory_bytes == 5000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.zeros(1, "float32")}, "unknown name 'y'"),
        ({"x": np.zeros((2, WIDTH + 1), "float32")}, r"'x' has shape \(2, 5\)"),
        ({"x": np.zeros((2, WIDTH))}, "'x' is float64: the model wants float32"),
        (
            {"x": np.zeros((MOST + 1, WIDTH), "float32")},
            rf"shape \(9, 4\): the engine was built for \(1, 4\) to \({MOST}, 4\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    runner: TensorRtRunner, change: dict[str, np.ndarray], sentence: str
):
    for use in (runner.infer, lambda inputs: runner.time(inputs, 1)):
        with pytest.raises(UsageError, match=sentence):
            use({**tensors(), **change})
    inputs = tensors()
    np.testing.assert_allclose(runner.infer(inputs)["total"], expected(inputs)["total"], rtol=1e-6)


def test_no_runs_can_not_be_timed(runner: TensorRtRunner):
    for use in (runner.time, runner.profile_layers):
        with pytest.raises(UsageError, match="at least 1"):
            use(tensors(), 0)


def test_a_closed_runner_refuses(runner: TensorRtRunner):
    with runner:
        runner.infer(tensors())
    with pytest.raises(UsageError, match="closed"):
        runner.infer(tensors())
    with pytest.raises(UsageError, match="closed"):
        runner.time(tensors(), 1)


def test_a_missing_engine_is_named(trt: TensorRT, tmp_path: Path):
    with pytest.raises(DeviceError, match=r"no model file .*gone\.engine"):
        TensorRtRunner(tmp_path / "gone.engine", trt=trt, device=CPU)


def test_an_engine_of_another_machine_is_a_sentence(trt: TensorRT, tmp_path: Path):
    path = tmp_path / "other.engine"
    path.write_bytes(b"something else")
    with pytest.raises(DeviceError, match=r"can't load .*: Magic tag does not match\. Engines run"):
        TensorRtRunner(path, trt=trt, device=CPU)


def test_without_a_gpu_the_real_runtime_says_so(plan: Path):
    """The real class over empty libraries, or of TensorRT-RTX where there is no driver."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    real = TensorRT(module=REAL, flavour="tensorrt", version=REAL.__version__)
    with pytest.raises(DeviceError, match=r"TensorRT can't run here: .+\.|can't load .*Engines"):
        load_engine(plan, trt=real)


def test_a_tensor_that_numpy_has_no_type_for(trt: TensorRT, plan: Path):
    def change(engine: Any) -> None:
        engine.get_tensor_dtype.side_effect = lambda name: REAL.DataType.BF16

    with pytest.raises(DeviceError, match="'x' holds BF16, and inputs and outputs have to be"):
        load_engine(plan, trt=refusing(trt, change))


def test_a_context_that_does_not_fit_into_memory(trt: TensorRT, plan: Path):
    def change(engine: Any) -> None:
        engine.create_execution_context.side_effect = lambda config: None

    with pytest.raises(DeviceError, match="can't make a context"):
        TensorRtRunner(plan, trt=refusing(trt, change), device=CPU)


def test_an_engine_that_fails_is_a_sentence(trt: TensorRT, plan: Path):
    def change(engine: Any) -> None:
        create = engine.create_execution_context.side_effect

        def failing(config: Any) -> Any:
            context = create(config)
            context.execute_async_v3.side_effect = lambda stream_handle: False
            return context

        engine.create_execution_context.side_effect = failing

    with (
        TensorRtRunner(plan, trt=refusing(trt, change), device=CPU) as runner,
        pytest.raises(DeviceError, match=r"can't run .*tiny\.engine: it gives no reason"),
    ):
        runner.infer(tensors())


@pytest.mark.parametrize(
    "use",
    [
        lambda runner: runner.infer(tensors()),
        lambda runner: runner.time(tensors(), 2),
        lambda runner: runner.profile_layers(tensors(), 2),
    ],
)
def test_what_tensorrt_says_of_a_late_failure_is_told(
    trt: TensorRT,
    plan: Path,
    machine: Machine,
    use: Callable[[TensorRtRunner], object],
):
    machine.can_capture, fails = False, False

    def change(engine: Any) -> None:
        create = engine.create_execution_context.side_effect

        def creating(config: Any) -> Any:
            context = create(config)
            execute = context.execute_async_v3.side_effect

            def execute_or_fail(stream_handle: int) -> bool:
                if fails:
                    _process_logger(changed.module)[0].log(REAL.ILogger.ERROR, "Kernel is gone.")
                return not fails and execute(stream_handle)

            context.execute_async_v3.side_effect = execute_or_fail
            return context

        engine.create_execution_context.side_effect = creating

    changed = refusing(trt, change)
    with TensorRtRunner(plan, trt=changed, device=CPU) as runner:
        runner.infer(tensors())
        fails = True
        with pytest.raises(DeviceError, match=r"can't run .*tiny\.engine: Kernel is gone\.$"):
            use(runner)
        fails = False
        use(runner)


def test_a_profile_that_is_refused_is_a_sentence(trt: TensorRT, plan: Path):
    def change(engine: Any) -> None:
        create = engine.create_execution_context.side_effect

        def creating(config: Any) -> Any:
            context = create(config)
            context.set_optimization_profile_async.side_effect = lambda index, stream: False
            return context

        engine.create_execution_context.side_effect = creating

    with TensorRtRunner(plan, trt=refusing(trt, change), device=CPU) as runner:
        runner.infer(tensors())
        with pytest.raises(DeviceError, match="can't choose the shapes of"):
            runner.profile_layers(tensors(), 1)


def test_autospec_refuses_what_the_class_does_not_have():
    context = create_autospec(REAL.IExecutionContext, instance=True)
    with pytest.raises(AttributeError):
        context.execute_async_v2(0)  # gone since TensorRT 10
