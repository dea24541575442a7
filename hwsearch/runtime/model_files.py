"""The files that a target's runtime reads: ONNX in fp32 or int8, or a program of torch."""

from __future__ import annotations

from pathlib import Path

from segment_anything.modeling import Sam

from hwsearch.records import Target
from hwsearch.runtime.onnx_export import export_decoder, export_encoder


def model_suffix(target: Target) -> str:
    """What the names of the target's model files end in."""
    return ".pt2" if target.runtime == "torch" else ".onnx"


def reads_plain_onnx(target: Target) -> bool:
    """Whether the target runs the very files that a bundle holds: ONNX in fp32.

    OpenVINO's bf16 is chosen where the file is opened, and an engine has the precision of the file
    that it is built from.
    """
    converted = target.runtime == "onnxruntime" and target.precision != "fp32"
    return target.runtime != "torch" and not converted


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
    return export_encoder(sam, path, name=name)


def export_decoder_for(target: Target, sam: Sam, path: Path, *, name: str = "sam") -> Path:
    """Write the mask decoder in the form that `target` runs; it is fp32 whatever the precision.

    Raises:
        ExportError: it can't be written.
    """
    if target.runtime == "torch":
        from hwsearch.runtime.torch_program import export_decoder_program

        return export_decoder_program(sam, path)
    return export_decoder(sam, path, name=name)
