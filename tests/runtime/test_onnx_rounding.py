"""The rounding replica computes what the types of a graph say, and shows overflow."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from hwsearch.runtime.onnx_precision import HalfPrecision, lowered
from hwsearch.runtime.onnx_rounding import rounding_replica

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def chain() -> onnx.ModelProto:
    """(a · a) / 1000, then GELU: fp16 overflows in the middle where |a| > 256."""
    nodes = [
        helper.make_node("Mul", ["a", "a"], ["square"], name="square"),
        helper.make_node("Mul", ["square", "small"], ["scaled"], name="scaled"),
        helper.make_node("Gelu", ["scaled"], ["b"], name="gelu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n"])],
        [onnx.numpy_helper.from_array(np.float32(1e-3), "small")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"a": values})[0]


def test_overflow_that_onnx_runtime_hides_is_seen():
    model = lowered(chain(), "fp16")
    values = np.array([1.0, 300.0], np.float32)
    assert np.isfinite(run(model, values)).all(), "then ONNX Runtime can judge fp16 files itself"
    got = run(rounding_replica(model), values)
    assert np.isfinite(got[0])
    assert np.isinf(got[1])
    assert np.isfinite(run(rounding_replica(lowered(chain(), "bf16")), values)).all()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_each_node_rounds(precision: HalfPrecision):
    dtype = DTYPES[precision]
    values = torch.linspace(-3, 9, 97)
    got = run(rounding_replica(lowered(chain(), precision)), values.numpy())
    rounded = values.to(dtype).float()
    square = (rounded * rounded).to(dtype).float()
    scaled = (square * torch.tensor(1e-3).to(dtype).float()).to(dtype).float()
    expected = torch.nn.functional.gelu(scaled).to(dtype).float()
    np.testing.assert_array_equal(got, expected.numpy())
    assert not np.array_equal(got, run(chain(), values.numpy()))


def test_nodes_that_stay_in_fp32_do_not_round():
    model = rounding_replica(lowered(chain(), "fp16", keep=["square", "scaled", "gelu"]))
    values = np.array([300.0, 1 / 3], np.float32)
    np.testing.assert_array_equal(run(model, values), run(chain(), values))


def test_the_replica_is_a_file_of_float32(tmp_path: Path):
    replica = rounding_replica(lowered(chain(), "bf16"))
    onnx.checker.check_model(replica, full_check=True)
    assert {weight.data_type for weight in replica.graph.initializer} == {TensorProto.FLOAT}
