"""A Segment Anything model as two ONNX files: its image encoder and its prompted decoder.

The graphs are written node by node (`onnx_encoder`, `onnx_decoder`) and not traced, because a
profile needs hundreds of subnets. CPU seconds for an encoder file, torch 2.14, on a busy machine:

|                                       | 192 wide, 12 layers, 256 px | ViT-B, 1024 px |
|---------------------------------------|-----------------------------|----------------|
| `torch.onnx.export(dynamo=True)`      | 9 (13 the first time)       | 9.4            |
| these functions                       | 0.07                        | 1.4            |
| reading the file and writing it again | 0.05                        | 1.2            |

The last row, for the largest subnet, is the least that slicing it out of the supernet's own file
could take: the time goes into copying weights, and next to nothing is to be gained. Files are fp32;
a TensorRT engine's precision is that of its file, and for ONNX Runtime's int8 see `onnx_int8`.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx import helper
from segment_anything.modeling import Sam

import hwsearch
from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_decoder import write_decoder
from hwsearch.runtime.onnx_encoder import write_encoder
from hwsearch.runtime.onnx_graph import GraphWriter

# Protobuf can't hold more than 2 GiB; weights above this go to a file beside the graph.
INLINE_WEIGHT_BYTES = 1_800_000_000
METADATA_PREFIX = "hwsearch."


@torch.no_grad()
def export_encoder(sam: Sam, path: Path, *, name: str = "sam") -> Path:
    """Write the image encoder as ONNX.

    Input `image`: B×3×R×R float32, already normalised and padded, with a free batch B and the
    model's own resolution R. Output `image_embeddings`: B×C×G×G, G = R / patch size.

    Args:
        sam: a plain model; an extracted subnet has its position tables at its own resolution.
        path: the file to write. Weights over 1.8 GB go to `<path>.data` beside it.
        name: what the metadata call the model.

    Raises:
        ExportError: the encoder is not one that Segment Anything has, or can't be written.
    """
    return save_model(encoder_model(sam, name=name), path)


@torch.no_grad()
def encoder_model(sam: Sam, *, name: str = "sam") -> onnx.ModelProto:
    """What `export_encoder` writes."""
    graph = GraphWriter("image_encoder")
    write_encoder(graph, sam.image_encoder)
    return graph.model(_metadata(sam, name=name, part="encoder"))


@torch.no_grad()
def export_decoder(sam: Sam, path: Path, *, name: str = "sam") -> Path:
    """Write the prompt encoder and the mask decoder as one ONNX file.

    Inputs: `image_embeddings` (1×C×G×G), `point_coords` (P×N×2, (x, y) in pixels of the input
    frame), `point_labels` (P×N float32: 1 object, 0 background, 2 and 3 box corners, -1 none).
    Outputs: `low_res_masks` (P×M×4G×4G logits) and `iou_predictions` (P×M), all mask tokens: 0 is
    the single-mask output, 1 … the multi-mask ones. P and N are free. A prompt without a box
    has to end with one point labelled -1, as `SamPredictor` adds it.

    Args and Raises: as `export_encoder`.
    """
    return save_model(decoder_model(sam, name=name), path)


@torch.no_grad()
def decoder_model(sam: Sam, *, name: str = "sam") -> onnx.ModelProto:
    """What `export_decoder` writes."""
    graph = GraphWriter("mask_decoder")
    write_decoder(graph, sam)
    return graph.model(_metadata(sam, name=name, part="decoder"))


def read_metadata(path: Path) -> dict[str, str]:
    """What `export_encoder` and `export_decoder` noted in a file, without its weights.

    Raises:
        ExportError: the file is missing or no ONNX file.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # noqa: BLE001 - protobuf's decode errors have no common public base
        raise ExportError(f"{path} can't be read as an ONNX file: {error}.") from None
    return {
        prop.key.removeprefix(METADATA_PREFIX): prop.value
        for prop in model.metadata_props
        if prop.key.startswith(METADATA_PREFIX)
    }


def _metadata(sam: Sam, *, name: str, part: str) -> dict[str, str]:
    facts = {
        "version": hwsearch.__version__,
        "model": name,
        "part": part,
        "resolution": str(sam.image_encoder.img_size),
        "pixel_mean": json.dumps(decimals(sam.pixel_mean)),
        "pixel_std": json.dumps(decimals(sam.pixel_std)),
        "mask_threshold": str(float(sam.mask_threshold)),
    }
    return {METADATA_PREFIX + key: value for key, value in facts.items()}


def decimals(values: torch.Tensor) -> tuple[float, ...]:
    """The shortest decimal numbers that give these float32 values again."""
    return tuple(float(str(value)) for value in values.flatten().cpu().numpy())


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the weights have to stand in a file of their own."""
    # counted by their types: the bytes themselves would be copied to be counted
    weight_bytes = sum(
        math.prod(weight.dims) * helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
        for weight in model.graph.initializer
    )
    return bool(weight_bytes > INLINE_WEIGHT_BYTES)


def save_model(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model in one rename, and weights that are too large for one file beside it.

    Raises:
        ExportError: it can't be written.
    """
    large = is_large(model)
    with staged(path) as file:
        onnx.save(
            model,
            file,
            save_as_external_data=large,
            location=f"{path.name}.data" if large else None,
        )
    return path


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A file to write in the place of `path`, in a folder aside; it is renamed at the end.

    So are the files that are written beside it. It has the name of `path`, since a graph names the
    file of its weights.

    Raises:
        ExportError: it can't be written; what was at `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        try:
            yield Path(folder) / path.name
        except OSError as error:
            raise ExportError(f"{path} could not be written: {error.strerror}.") from None
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the data before the graph
            file.replace(path.parent / file.name)
