"""An image encoder whose matrix products ONNX Runtime computes in int8.

Weights are stored in int8, one scale each; activations are quantised as they come (dynamic
quantisation). All else stays fp32: norms, attention maps, convolutions, and the decoder.

What is quantised was chosen by measurement: subnets of the demo supernet, ONNX Runtime 1.32, a Xeon
with VNNI and AMX that had other work too, 1 thread. Speed is the median of the ratios to fp32 over
200 interleaved rounds, for the largest and the smallest subnet. The other columns are the worst of
three subnets on 96 objects of `scenes` (val): mIoU less that of fp32 in points, the mean IoU of the
masks with those of fp32, and the least cosine of an embedding.

| matrices in int8        | largest | smallest | mIoU  | IoU  | cosine |
|-------------------------|---------|----------|-------|------|--------|
| MLPs                    | 1.35    | 1.05     | -0.01 | .999 | .99997 |
| qkv and projections too | 1.70    | 1.26     | -0.02 | .998 | .99987 |
| **the neck's as well**  | 1.71    | 1.30     | -0.01 | .997 | .99977 |
| all, a scale a channel  | (1.68)  | (1.26)   | -0.03 | .997 | .99985 |

In brackets: timed without the neck. So all are taken, with one scale each: a scale a channel gains
neither accuracy nor speed, and takes five times as long to quantise (1 s for the largest, not 0.2).
Weights in uint8 were slower than fp32 (0.96) in a shorter run.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from segment_anything.modeling import Sam

from hwsearch.runtime.onnx_export import METADATA_PREFIX, encoder_model, staged

_MATRIX_DIMENSIONS = 2


def export_encoder_int8(sam: Sam, path: Path, *, name: str = "sam") -> Path:
    """Write the image encoder as ONNX with int8 matrix products.

    Names and shapes are those of `export_encoder`'s file; inputs and outputs are float32.

    Raises:
        ExportError: the encoder is not one that Segment Anything has, or can't be written.
    """
    model = encoder_model(sam, name=name)
    model.metadata_props.add(key=METADATA_PREFIX + "precision", value="int8")
    # There is nothing to fold or to fuse ahead; without this note there is a warning on stderr.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with staged(path) as file:
        quantize_dynamic(
            model,
            file,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=weight_products(model.graph),
            per_channel=False,
            weight_type=QuantType.QInt8,
        )
    return path


def weight_products(graph: onnx.GraphProto) -> list[str]:
    """Names of the products with a constant matrix: MLPs, qkv, projections and the neck's first.

    The tables of relative positions have three dimensions; ONNX Runtime's quantiser fails on such
    with a scale a channel, and they hold 0.5 % of the arithmetic.
    """
    matrices = {
        weight.name for weight in graph.initializer if len(weight.dims) == _MATRIX_DIMENSIONS
    }
    return [
        node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in matrices
    ]
