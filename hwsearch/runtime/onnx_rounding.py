"""A float32 replica of an fp16 or bf16 graph, which rounds as the graph says.

ONNX Runtime has few fp16 and no bf16 kernels for the CPU: it casts values to float32, computes, and
drops the casts in between. A value beyond 65504 then passes as if nothing were, where a GPU gives
infinity. The replica casts to the low precision and back after each node, which ONNX Runtime keeps
at every level of optimisation. So it computes what a GPU computes that sums in fp32, up to the
order of the sums, and shows overflow. A GPU's fused kernels may round less often.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from hwsearch.runtime.onnx_types import FLOATS, element_types

# They hand values on as they are.
_MOVES = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Relu", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze", "Where"),
    }
)
_LOW = FLOATS - {TensorProto.FLOAT}


def rounding_replica(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model that rounds each value of `model` that is fp16 or bf16.

    Raises:
        ExportError: the model's types can't be told.
    """
    types = element_types(model)
    replica = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        opset_import=model.opset_import,
        metadata_props=model.metadata_props,
    )
    graph = replica.graph
    graph.name = model.graph.name
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.initializer.extend(_widened(weight) for weight in model.graph.initializer)
    for source in model.graph.node:
        node = graph.node.add()
        node.CopyFrom(source)
        _widen_attributes(node)
        if node.op_type in _MOVES:
            continue
        for place, name in enumerate(source.output):
            if types[name] in _LOW:
                node.output[place] = f"{name}.exact"
                graph.node.extend(_rounding(f"{name}.exact", name, types[name]))
    return replica


def _rounding(exact: str, rounded: str, low: int) -> list[onnx.NodeProto]:
    between = f"{rounded}.low"
    return [
        helper.make_node("Cast", [exact], [between], name=f"{between}/Cast", to=low),
        helper.make_node(
            "Cast", [between], [rounded], name=f"{rounded}/round", to=TensorProto.FLOAT
        ),
    ]


def _widen_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.i in _LOW:
            attribute.i = TensorProto.FLOAT
        if node.op_type == "Constant" and attribute.t.data_type in _LOW:
            attribute.t.CopyFrom(_widened(attribute.t))


def _widened(weight: onnx.TensorProto) -> onnx.TensorProto:
    if weight.data_type not in _LOW:
        return weight
    values = onnx.numpy_helper.to_array(weight).astype("float32")
    return onnx.numpy_helper.from_array(values, weight.name)
