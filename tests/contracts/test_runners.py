"""One suite for every runner: the same small model, the same promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwsearch.errors import DeviceError, UsageError
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.openvino import OpenVinoRunner
from hwsearch.runtime.runner import Runner, TensorSpec
from hwsearch.runtime.torch import TorchRunner

WIDTH_IN, WIDTH_OUT = 16, 8
WEIGHT = np.random.default_rng(0).normal(size=(WIDTH_IN, WIDTH_OUT)).astype("float32")
BIAS = np.random.default_rng(1).normal(size=(WIDTH_OUT,)).astype("float32")
INPUTS = (TensorSpec("x", (None, WIDTH_IN), "float32"), TensorSpec("scale", (1,), "float32"))
OUTPUTS = (
    TensorSpec("hidden", (None, WIDTH_OUT), "float32"),
    TensorSpec("total", (None,), "float32"),
)


def write_model(path: Path) -> Path:
    """Write relu(x @ WEIGHT + BIAS) · scale, and its sum over the last dimension, as ONNX."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["positive"]),
            helper.make_node("Mul", ["positive", "scale"], ["hidden"]),
            helper.make_node("ReduceSum", ["hidden", "axes"], ["total"], keepdims=0),
        ],
        "tiny",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH_IN]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", WIDTH_OUT]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["batch"]),
        ],
        [
            numpy_helper.from_array(WEIGHT, "weight"),
            numpy_helper.from_array(BIAS, "bias"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


class Tiny(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(x @ torch.from_numpy(WEIGHT) + torch.from_numpy(BIAS)) * scale
        return hidden, hidden.sum(-1)


def open_onnxruntime(path: Path) -> Runner:
    return OnnxRuntimeRunner(path, threads=1)


def open_openvino(path: Path) -> Runner:
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    return OpenVinoRunner(path, threads=1)


def open_torch(_path: Path) -> Runner:
    return TorchRunner(Tiny(), inputs=INPUTS, outputs=OUTPUTS)


FROM_FILE = [
    pytest.param(open_onnxruntime, "ONNX Runtime", id="onnxruntime"),
    pytest.param(open_openvino, "OpenVINO", id="openvino"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(params=[open_onnxruntime, open_openvino, open_torch], ids=lambda f: f.__name__[5:])
def runner(request: pytest.FixtureRequest, model: Path) -> Iterator[Runner]:
    with request.param(model) as opened:
        yield opened


def tensors(batch: int = 3) -> dict[str, np.ndarray]:
    x = np.random.default_rng(2).normal(size=(batch, WIDTH_IN)).astype("float32")
    return {"x": x, "scale": np.array([2.5], "float32")}


def test_specs_name_shape_and_type(runner: Runner) -> None:
    assert runner.inputs == INPUTS
    assert runner.outputs == OUTPUTS


@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_are_those_of_the_arithmetic(runner: Runner, batch: int) -> None:
    inputs = tensors(batch)
    hidden = np.maximum(inputs["x"] @ WEIGHT + BIAS, 0) * 2.5
    outputs = runner.infer(inputs)
    assert list(outputs) == ["hidden", "total"]
    np.testing.assert_allclose(outputs["hidden"], hidden, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs["total"], hidden.sum(-1), rtol=1e-5, atol=1e-5)


def test_order_of_the_inputs_does_not_matter(runner: Runner) -> None:
    inputs = tensors()
    turned = dict(reversed(inputs.items()))
    np.testing.assert_array_equal(runner.infer(inputs)["total"], runner.infer(turned)["total"])


def test_outputs_outlive_the_next_run(runner: Runner) -> None:
    inputs = tensors()
    first = runner.infer(inputs)["hidden"]
    kept = first.copy()
    runner.infer({**inputs, "x": inputs["x"] + 1})
    np.testing.assert_array_equal(first, kept)


def test_a_run_after_timing_leaves_the_timed_inputs_alone(runner: Runner) -> None:
    timed, others = tensors(), tensors()
    before = timed["x"].copy()
    runner.time(timed, 1)
    others["x"] += 1
    hidden = np.maximum(others["x"] @ WEIGHT + BIAS, 0) * 2.5
    np.testing.assert_allclose(runner.infer(others)["hidden"], hidden, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(timed["x"], before)


def test_time_gives_one_latency_a_run(runner: Runner) -> None:
    seconds = runner.time(tensors(), 4)
    assert seconds.shape == (4,)
    assert seconds.dtype == np.float64
    assert (seconds > 0).all()


def test_arrays_that_are_not_contiguous_are_taken(runner: Runner) -> None:
    inputs = tensors(4)
    strided = {**inputs, "x": np.asfortranarray(inputs["x"])}
    np.testing.assert_allclose(
        runner.infer(strided)["total"], runner.infer(inputs)["total"], rtol=1e-5
    )
    assert runner.time(strided, 1).size == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.zeros(1, "float32")}, "unknown name 'y'"),
        ({"x": np.zeros((2, WIDTH_IN + 1), "float32")}, r"'x' has shape \(2, 17\).*\('any', 16\)"),
        ({"x": np.zeros(WIDTH_IN, "float32")}, r"'x' has shape \(16,\)"),
        ({"x": np.zeros((2, WIDTH_IN))}, "'x' is float64: the model wants float32"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    runner: Runner, change: dict[str, np.ndarray], sentence: str
) -> None:
    for use in (runner.infer, lambda inputs: runner.time(inputs, 1)):
        with pytest.raises(UsageError, match=sentence):
            use({**tensors(), **change})


def test_a_missing_input_is_named(runner: Runner) -> None:
    with pytest.raises(UsageError, match=r"lack \['scale'\]: the model wants \['x', 'scale'\]"):
        runner.infer({"x": tensors()["x"]})


def test_no_runs_can_not_be_timed(runner: Runner) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        runner.time(tensors(), 0)


def test_a_closed_runner_refuses(runner: Runner) -> None:
    with runner:
        runner.infer(tensors())
    with pytest.raises(UsageError, match="closed"):
        runner.infer(tensors())
    with pytest.raises(UsageError, match="closed"):
        runner.time(tensors(), 1)


@pytest.mark.parametrize(("open_file", "runtime"), FROM_FILE)
def test_a_missing_file_is_named(
    open_file: Callable[[Path], Runner], runtime: str, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match=r"no model file .*gone\.onnx"):
        open_file(tmp_path / "gone.onnx")


@pytest.mark.parametrize(("open_file", "runtime"), FROM_FILE)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_truncated_file_gives_one_sentence(
    open_file: Callable[[Path], Runner], runtime: str, share: float, model: Path, tmp_path: Path
) -> None:
    content = model.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DeviceError, match=rf"^{runtime} can't load .*cut\.onnx: .+\.$") as caught:
        open_file(cut)
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
