"""An ONNX graph with int8 matrix products, between QuantizeLinear and DequantizeLinear.

Everything is symmetric, as TensorRT wants it: activations with one scale, found by running images
through the model, weights with a scale a column. Nothing but the inputs of products with a
constant matrix is quantised; no bias is, and no product's result.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from hwsearch.errors import ExportError
from hwsearch.runtime.runner import Array

_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,  # an int32 bias has a DequantizeLinear that TensorRT refuses
    "MatMulConstBOnly": True,
    "OpTypesToExcludeOutputQuantization": ["MatMul"],
}


def quantized(
    path: Path,
    *,
    products: Collection[str],
    readings: Iterable[Mapping[str, Array]],
    external: bool = False,
) -> onnx.ModelProto:
    """A float32 model whose matrix products `products` are in int8.

    Args:
        path: the float32 model.
        products: names of MatMul nodes whose second input is a constant matrix.
        readings: the model's inputs for each image of the calibration set.
        external: the model's weights are too large for one file.

    Raises:
        ExportError: there is nothing to calibrate on, or ONNX Runtime can't quantise the model.
    """
    reader = _Reader(readings)
    if not products:
        raise ExportError(f"{path} has no matrix product that could be in int8.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        out = Path(folder) / path.name
        try:
            with _quiet():
                quantize_static(
                    path,
                    out,
                    reader,
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=["MatMul"],
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_quantize=sorted(products),
                    calibrate_method=CalibrationMethod.MinMax,
                    use_external_data_format=external,
                    extra_options=_OPTIONS,
                )
        except Exception as error:  # noqa: BLE001 - its errors share no other base
            reason = " ".join(str(error).split())[:300]
            if not reader.given:
                reason = "there are no images to calibrate on"
            raise ExportError(f"{path} can't be quantised to int8: {reason}.") from None
        return onnx.load(out)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    """Hands the readings over, one by one."""

    def __init__(self, readings: Iterable[Mapping[str, Array]]) -> None:
        self._readings: Iterator[Mapping[str, Array]] = iter(readings)
        self.given = 0

    def get_next(self) -> dict[str, Array] | None:
        """The inputs of the next run, or None."""
        reading = next(self._readings, None)
        self.given += reading is not None
        return None if reading is None else dict(reading)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the root logger's advice to preprocess, for which there is nothing to do."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
