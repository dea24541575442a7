"""The types of values are those that ONNX's own inference finds."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tiny import MIXED, tiny_supernet

from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.onnx_precision import lowered, nodes_of
from hwsearch.runtime.onnx_types import element_types


def model_of(*nodes: onnx.NodeProto, opset: int = 20) -> onnx.ModelProto:
    source = helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 3])
    result = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [source], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize("export", [export_encoder, export_decoder])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_types_are_those_of_onnx_itself(export, precision: str, tmp_path: Path):
    model = onnx.load(export(tiny_supernet().extract(MIXED), tmp_path / "m.onnx"))
    if precision == "fp16":
        model = lowered(model, "fp16", keep=nodes_of(model.graph, "norms", "prompts"))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    expected = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.output)
    }
    types = element_types(model)
    produced = {name for node in model.graph.node for name in node.output}
    assert {name: types[name] for name in produced} == {name: expected[name] for name in produced}


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Relu", ["nowhere"], ["x"], name="r"), "'r'.*'nowhere'"),
        (helper.make_node("Frobnicate", ["a"], ["x"], name="f"), "'f' is a Frobnicate"),
        (helper.make_node("Gelu", ["a"], ["x"], name="g", domain="my.own"), "'g' is a Gelu"),
    ],
)
def test_what_can_not_be_told_is_a_sentence(node: onnx.NodeProto, said: str):
    with pytest.raises(ExportError, match=said):
        element_types(model_of(node))


def test_defaults_of_quantisation_and_constants():
    types = element_types(
        model_of(
            helper.make_node("QuantizeLinear", ["a", "a"], ["q"]),
            helper.make_node("Shape", ["a"], ["s"]),
            helper.make_node("ConstantOfShape", ["s"], ["c"]),
            helper.make_node("Equal", ["a", "c"], ["e"]),
            helper.make_node("Cast", ["e"], ["h"], to=TensorProto.FLOAT16),
        )
    )
    assert types["q"] == TensorProto.UINT8
    assert types["s"] == TensorProto.INT64
    assert types["c"] == TensorProto.FLOAT
    assert types["e"] == TensorProto.BOOL
    assert types["h"] == TensorProto.FLOAT16
