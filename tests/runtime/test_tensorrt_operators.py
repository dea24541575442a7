"""The operator lint: exported graphs pass it, and its table is what TensorRT-RTX says."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny import SUBNETS, tiny_supernet

from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.onnx_int8 import export_encoder_int8, weight_products
from hwsearch.runtime.onnx_precision import lowered, nodes_of
from hwsearch.runtime.onnx_qdq import quantized
from hwsearch.runtime.tensorrt import load_tensorrt
from hwsearch.runtime.tensorrt_operators import _TYPES, check_operators, operator_faults


@pytest.mark.parametrize("name", SUBNETS)
def test_exported_graphs_pass_in_every_precision(name: str, tmp_path: Path):
    sam = tiny_supernet().extract(SUBNETS[name])
    side = SUBNETS[name].resolution
    for path in (
        export_encoder(sam, tmp_path / "encoder.onnx"),
        export_decoder(sam, tmp_path / "decoder.onnx"),
    ):
        check_operators(path)
        model = onnx.load(path)
        for precision in ("fp16", "bf16"):
            kept = nodes_of(model.graph, "norms", "prompts")
            assert list(operator_faults(lowered(model, precision, keep=kept))) == []
    image = np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32)
    path = tmp_path / "encoder.onnx"
    products = weight_products(onnx.load(path).graph)
    model = quantized(path, products=products, readings=[{"image": image}])
    assert list(operator_faults(model)) == []
    assert list(operator_faults(lowered(model, "fp16"))) == []


def test_dynamic_int8_is_for_the_cpu_alone(tmp_path: Path):
    path = tmp_path / "int8.onnx"
    export_encoder_int8(tiny_supernet().extract(SUBNETS["mixed"]), path)
    with pytest.raises(ExportError, match=r"int8\.onnx: .*DynamicQuantizeLinear.* and \d+ more"):
        check_operators(path)


def one_node(node: onnx.NodeProto, of: int = TensorProto.FLOAT) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, of, [2, 2]) for name in ("a", "x")]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(
    ("node", "of", "said"),
    [
        (helper.make_node("Det", ["a"], ["x"], name="d"), TensorProto.FLOAT, ["node 'd' is a Det"]),
        (
            helper.make_node("Softmax", ["a"], ["x"], name="s"),
            TensorProto.DOUBLE,
            ["node 's' (Softmax) is in FP64"],
        ),
        (
            helper.make_node("Mish", ["a"], ["x"], name="m"),
            TensorProto.BFLOAT16,
            ["node 'm' (Mish) is in BF16"],
        ),
        (
            helper.make_node("FusedMatMul", ["a", "a"], ["x"], name="f", domain="com.microsoft"),
            TensorProto.FLOAT,
            ["node 'f' (FusedMatMul) is of the domain com.microsoft"],
        ),
        (helper.make_node("Softmax", ["a"], ["x"], name="s"), TensorProto.FLOAT16, []),
    ],
)
def test_faults_name_the_node(node: onnx.NodeProto, of: int, said: list[str]):
    assert list(operator_faults(one_node(node, of))) == said


def test_branches_are_looked_into():
    inner = helper.make_graph(
        [helper.make_node("Det", ["a"], ["y"], name="inside")],
        "then",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["a"], ["x"], name="if", then_branch=inner, else_branch=inner)
    assert set(operator_faults(one_node(node, TensorProto.BOOL))) == {"node 'inside' is a Det"}


def test_a_damaged_file_is_a_sentence(tmp_path: Path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"nothing of use")
    with pytest.raises(ExportError, match="can't be read as an ONNX file"):
        check_operators(path)


def test_the_table_is_what_tensorrt_rtx_says():
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    trt = load_tensorrt(prefer="tensorrt-rtx").module
    from hwsearch.runtime.tensorrt_log import build_log

    with build_log(trt) as log:
        builder = trt.Builder(log.logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log.logger)
        assert [op for op in _TYPES if not parser.supports_operator(op)] == []
        assert not parser.supports_operator("Det")
