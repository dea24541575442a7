"""Element types of every value in an ONNX graph, from the schemas of its operators alone.

ONNX's own shape inference gives them too, but takes the whole model as one protobuf message, which
can't exceed 2 GiB; a ViT-H does.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, defs

from hwsearch.errors import ExportError

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_DEFAULT_DOMAINS = ("", "ai.onnx")
# Outputs whose type no input has: the schemas leave it to an attribute, a default or prose.
_FIXED = {
    "Shape": TensorProto.INT64,
    "Size": TensorProto.INT64,
    "ArgMax": TensorProto.INT64,
    "ArgMin": TensorProto.INT64,
    "NonZero": TensorProto.INT64,
    "Equal": TensorProto.BOOL,
    "Greater": TensorProto.BOOL,
    "GreaterOrEqual": TensorProto.BOOL,
    "Less": TensorProto.BOOL,
    "LessOrEqual": TensorProto.BOOL,
    "IsNaN": TensorProto.BOOL,
    "IsInf": TensorProto.BOOL,
}


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """`TensorProto` element type of each value of the main graph, by its name.

    Raises:
        ExportError: a node's type can't be told, since its operator is unknown to ONNX or its
            inputs come from nowhere; the message names it.
    """
    opset = opset_of(model)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    types |= {weight.name: weight.data_type for weight in model.graph.initializer}
    for node in model.graph.node:
        types |= zip(node.output, _output_types(node, opset, types), strict=True)
    return types


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses.

    Raises:
        ExportError: it uses none.
    """
    for entry in model.opset_import:
        if entry.domain in _DEFAULT_DOMAINS:
            return int(entry.version)
    raise ExportError("The ONNX model names no version of ONNX's operators: export it again.")


def schema_of(node: onnx.NodeProto, opset: int) -> defs.OpSchema:
    """What ONNX says about a node's operator.

    Raises:
        ExportError: ONNX knows no such operator in that version; the message names the node.
    """
    try:
        return defs.get_schema(node.op_type, opset, node.domain)
    except Exception:  # noqa: BLE001 - the binding's SchemaError has no public base
        raise ExportError(
            f"Node '{node.name}' is a {node.op_type}, which is no operator of ONNX's opset {opset}."
        ) from None


def typed_inputs(node: onnx.NodeProto, schema: defs.OpSchema) -> Iterator[tuple[int, str]]:
    """Index of each input that is there, with the schema's name of its type (`T`, `T1` …)."""
    last = len(schema.inputs) - 1  # the last one of a schema may stand for many
    for index, name in enumerate(node.input):
        if name:
            yield index, schema.inputs[min(index, last)].type_str


def _output_types(node: onnx.NodeProto, opset: int, types: dict[str, int]) -> list[int]:
    schema = schema_of(node, opset)
    known: dict[str, int] = {}
    for index, kind in typed_inputs(node, schema):
        if node.input[index] not in types:
            raise ExportError(
                f"Node '{node.name}' ({node.op_type}) takes '{node.input[index]}', which no node "
                "before it gives."
            )
        known.setdefault(kind, types[node.input[index]])
    told = _told_apart(node)
    if told is not None:
        return [told] * len(node.output)
    last = len(schema.outputs) - 1
    return [
        _type_named(node, schema.outputs[min(index, last)].type_str, known)
        for index in range(len(node.output))
    ]


def _told_apart(node: onnx.NodeProto) -> int | None:
    """The type of a node's outputs where something else than its inputs tells it."""
    for attribute in node.attribute:
        if attribute.name == "to" and node.op_type == "Cast":
            return int(attribute.i)
        if attribute.name == "value" and node.op_type in {"Constant", "ConstantOfShape"}:
            return int(attribute.t.data_type)
    # ONNX's defaults: a quantised value is uint8, a constant of a shape is float32.
    if node.op_type == "QuantizeLinear" and len(node.input) < 3:
        return TensorProto.UINT8
    if node.op_type == "ConstantOfShape":
        return TensorProto.FLOAT
    return _FIXED.get(node.op_type)


def _type_named(node: onnx.NodeProto, kind: str, known: dict[str, int]) -> int:
    if kind in known:
        return known[kind]
    if kind.startswith("tensor("):
        return int(TensorProto.DataType.Value(kind.removeprefix("tensor(").rstrip(")").upper()))
    raise ExportError(f"The type of what node '{node.name}' ({node.op_type}) gives is not known.")
