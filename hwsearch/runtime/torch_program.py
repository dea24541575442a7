"""A Segment Anything model as files that torch runs: programs of ATen operators.

`torch.export` writes down the operators that the module calls; torch calls the same ones eagerly,
one after the other, when it runs the file. Outputs equal the module's to the last bit. The file
needs no code of the model, so that any process can open it.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from hwsearch.runtime.onnx_export import staged
from hwsearch.runtime.runner import TensorSpec, load_error, require_file
from hwsearch.runtime.torch import TorchRunner
from hwsearch.sam import decode

_SPECS_FILE = "specs.json"
_BOX_POINTS = 2


class _Decoder(nn.Module):
    """The prompts of one image, as `runtime.onnx_export.export_decoder` takes them."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self._sam = sam

    def forward(
        self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits P×M×4G×4G and predicted IoUs P×M."""
        masks, ious = decode(self._sam, image_embeddings, point_coords[None], point_labels[None])
        return masks[0], ious[0]


def export_encoder_program(sam: Sam, path: Path, *, batch: int = 1) -> Path:
    """Write the image encoder: `image` (B×3×R×R) in, `image_embeddings` (B×C×G×G) out.

    Args:
        sam: a plain model.
        path: the file to write, with the suffix `.pt2`.
        batch: B, which is fixed in the file.

    Raises:
        ExportError: the file can't be written.
    """
    side = sam.image_encoder.img_size
    image = TensorSpec("image", (batch, 3, side, side), "float32")
    return _export(sam.image_encoder, path, inputs=[image], outputs=["image_embeddings"])


def export_decoder_program(sam: Sam, path: Path) -> Path:
    """Write the prompt encoder and the mask decoder, for one image and one box.

    Inputs and outputs are those of `runtime.onnx_export.export_decoder`, P being 1 and N 2.

    Args and Raises: as `export_encoder_program`.
    """
    grid = sam.prompt_encoder.image_embedding_size
    channels = sam.prompt_encoder.embed_dim
    inputs = [
        TensorSpec("image_embeddings", (1, channels, *grid), "float32"),
        TensorSpec("point_coords", (1, _BOX_POINTS, 2), "float32"),
        TensorSpec("point_labels", (1, _BOX_POINTS), "float32"),
    ]
    return _export(_Decoder(sam), path, inputs=inputs, outputs=["low_res_masks", "iou_predictions"])


def open_program(path: Path, *, threads: int) -> TorchRunner:
    """Open what the functions above wrote.

    Raises:
        DeviceError: there is no such file, or torch can't load it.
    """
    require_file(path)
    notes = {_SPECS_FILE: ""}
    try:
        if not zipfile.is_zipfile(path):  # torch would log a traceback
            raise ValueError("it is no whole zip archive")
        program = torch.export.load(path, extra_files=notes)
        specs = json.loads(notes[_SPECS_FILE])
    except Exception as error:  # noqa: BLE001 - torch's errors share no other base
        raise load_error("torch", path, error) from None
    inputs, outputs = (
        [TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in specs[side]]
        for side in ("inputs", "outputs")
    )
    # The runner checks the inputs; the program's own guards would be timed with it.
    module = program.module(check_guards=False)
    return TorchRunner(module, inputs=inputs, outputs=outputs, threads=threads, name=str(path))


@torch.no_grad()
def _export(
    module: nn.Module, path: Path, *, inputs: Sequence[TensorSpec], outputs: Sequence[str]
) -> Path:
    examples = tuple(torch.zeros([size or 1 for size in spec.shape]) for spec in inputs)
    program = torch.export.export(module, examples)
    results = module(*examples)
    results = (results,) if isinstance(results, Tensor) else results
    specs = {
        "inputs": [dataclasses.asdict(spec) for spec in inputs],
        "outputs": [
            dataclasses.asdict(TensorSpec(name, tuple(result.shape), "float32"))
            for name, result in zip(outputs, results, strict=True)
        ],
    }
    with staged(path) as file, warnings.catch_warnings():
        # about tensors that are transposed in memory, for models that are on a GPU
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, file, extra_files={_SPECS_FILE: json.dumps(specs)})
    return path
