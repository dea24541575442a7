"""Which ONNX operators TensorRT reads, and in which types: a lint for machines without TensorRT.

A full parse by TensorRT says more (`tensorrt.parse_fault`): shapes, attributes and combinations are
not looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_types import element_types

# What TensorRT 10.13 and later and TensorRT-RTX 1.7 have in common: the operators that NVIDIA's
# parser (onnx-tensorrt, docs/operators.md) lists as supported and TensorRT-RTX confirms, by the
# types that it lists. Those that came after 10.13 are left out.
_BY_TYPES = {
    "FP32 FP16 BF16": """
        Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv
        ConvTranspose Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool
        GlobalLpPool GlobalMaxPool GroupNormalization HardSigmoid HardSwish Hardmax ImageScaler
        InstanceNormalization IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax
        LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization PRelu ParametricSoftplus
        QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal
        Resize Round ScaledTanh Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh
        ThresholdedRelu Upsample
    """,
    "FP32 FP16 BF16 INT32 INT64": """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual
        Max Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
        ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements
        ScatterND Shrink Sign SpaceToDepth Sub Sum TopK
    """,
    "FP32 FP16 BF16 INT32 INT64 BOOL": """
        Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot Reshape
        ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where
    """,
    "FP32 FP16": """
        BlackmanWindow GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero RoiAlign
    """,
    "BOOL": """
        And Not Or Xor
    """,
    "FP32 FP16 BF16 UINT8 INT32 INT64 BOOL": """
        Cast CastLike
    """,
    "FP32 FP16 BF16 FP8 INT4 FP4 INT32 INT64 BOOL": """
        Constant ConstantOfShape
    """,
    "FP8 INT8 INT4 FP4": """
        DequantizeLinear
    """,
    "FP32 FP16 BF16 INT8 INT32 INT64": """
        Gelu
    """,
    "FP32 FP16 BF16 FP8 INT32 INT64": """
        Mean
    """,
    "FP32": """
        STFT
    """,
}
_TYPES = {op: set(types.split()) for types, ops in _BY_TYPES.items() for op in ops.split()}
_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.DOUBLE: "FP64",
}
_FLOATS = frozenset({"FP64", "FP32", "FP16", "BF16"})


def check_operators(path: Path) -> None:
    """Do nothing if TensorRT's tables have every operator of an ONNX file in the type it has there.

    Raises:
        ExportError: they lack some; the message names the nodes. Or the file is no ONNX file.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # noqa: BLE001 - protobuf's decode errors have no common public base
        raise ExportError(f"{path} can't be read as an ONNX file: {error}.") from None
    faults = list(operator_faults(model))
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ExportError(
            f"TensorRT has no place for {path.name}: {'; '.join(faults[:3])}{more}; "
            "write the model without these operators."
        )


def operator_faults(model: onnx.ModelProto) -> Iterator[str]:
    """What TensorRT lacks for a model, a phrase for each node.

    Raises:
        ExportError: the model's types can't be told.
    """
    unknown = list(_unknown_operators(model.graph))
    if unknown:
        yield from unknown
        return
    types = element_types(model)
    for node in model.graph.node:
        for of in _relevant_types(node, types):
            if of not in _TYPES[node.op_type]:
                yield f"node '{node.name}' ({node.op_type}) is in {of}"
                break


def _unknown_operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield f"node '{node.name}' ({node.op_type}) is of the domain {node.domain}"
        elif node.op_type not in _TYPES:
            yield f"node '{node.name}' is a {node.op_type}"
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _unknown_operators(attribute.g)


def _relevant_types(node: onnx.NodeProto, types: dict[str, int]) -> Iterator[str]:
    """Types of all that is a float, or of the first input where nothing is.

    Conditions, indices and shapes have types of their own, which the table does not list.
    """
    names = [name for name in (*node.input, *node.output) if name]
    if node.op_type == "DequantizeLinear":  # the table lists what comes in
        names = names[:1]
    found = [_NAMES.get(types[name], f"type {types[name]}") for name in names]
    floats = [of for of in found if of in _FLOATS]
    yield from floats or found[:1]
