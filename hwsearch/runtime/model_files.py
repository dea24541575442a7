"""The files that a target's runtime reads: ONNX in its precision, or a program of torch."""

from __future__ import annotations

from pathlib import Path

import onnx
from segment_anything.modeling import Sam

from hwsearch.records import Target
from hwsearch.runtime.onnx_export import (
    METADATA_PREFIX,
    decoder_model,
    encoder_model,
    export_decoder,
    export_encoder,
    save_model,
)
from hwsearch.runtime.onnx_precision import (
    HALF_PRECISIONS,
    HalfPrecision,
    always_kept,
    lowered,
    nodes_of,
)


def model_suffix(target: Target) -> str:
    """What the names of the target's model files end in."""
    return ".pt2" if target.runtime == "torch" else ".onnx"


def reads_plain_onnx(target: Target) -> bool:
    """Whether the target runs the very files that every bundle holds: ONNX in fp32.

    OpenVINO's bf16 is chosen where the file is opened.
    """
    if target.runtime == "openvino":
        return True
    return target.runtime != "torch" and target.precision == "fp32"


def export_encoder_for(target: Target, sam: Sam, path: Path, *, name: str = "sam") -> Path:
    """Write the image encoder in the form, precision and batch that `target` runs.

    Raises:
        ExportError: the encoder is not one that Segment Anything has, or can't be written.
    """
    if target.runtime == "torch":
        from hwsearch.runtime.torch_program import export_encoder_program

        return export_encoder_program(sam, path, batch=target.batch)
    if target.runtime == "onnxruntime" and target.precision == "int8":
        from hwsearch.runtime.onnx_int8 import export_encoder_int8

        return export_encoder_int8(sam, path, name=name)
    half = _half_of_engine(target)
    if half:
        return _save_lowered(encoder_model(sam, name=name), half, path)
    return export_encoder(sam, path, name=name)


def export_decoder_for(target: Target, sam: Sam, path: Path, *, name: str = "sam") -> Path:
    """Write the mask decoder in the form that `target` runs; on a CPU it is fp32 in any case.

    Raises:
        ExportError: it can't be written.
    """
    if target.runtime == "torch":
        from hwsearch.runtime.torch_program import export_decoder_program

        return export_decoder_program(sam, path)
    half = _half_of_engine(target)
    if half:
        return _save_lowered(decoder_model(sam, name=name), half, path)
    return export_decoder(sam, path, name=name)


def _half_of_engine(target: Target) -> HalfPrecision | None:
    """The precision of the nodes of the ONNX that an engine is built from, where it is not fp32."""
    if not target.runtime.startswith("tensorrt"):
        return None
    return next((half for half in HALF_PRECISIONS if half == target.precision), None)


def _save_lowered(model: onnx.ModelProto, half: HalfPrecision, path: Path) -> Path:
    """Write with norms in fp32, which Segment Anything's trained encoders overflow without."""
    keep = always_kept(model.graph, half) | nodes_of(model.graph, "norms")
    low = lowered(model, half, keep=keep)
    low.metadata_props.add(key=f"{METADATA_PREFIX}precision", value=f"{half}, norms fp32")
    return save_model(low, path)
