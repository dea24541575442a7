"""Segment Anything checkpoints: read without running any code, and checked for their geometry."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from segment_anything.modeling import Sam
from torch import Tensor

from hwsearch.errors import CheckpointError, UsageError
from hwsearch.records import SamGeometry, first_fault
from hwsearch.sam import build_sam

# (embed_dim, depth, heads) of the official models, as segment_anything.build_sam defines them.
OFFICIAL = {"vit_b": (768, 12, 12), "vit_l": (1024, 24, 16), "vit_h": (1280, 32, 16)}
MODEL_NAMES = (*OFFICIAL, "custom")


def load_checkpoint(path: Path, *, model: str | None = None) -> tuple[Sam, SamGeometry]:
    """Read a `.pth` or `.safetensors` state dict of a Segment Anything model.

    Args:
        path: the file, with the parameter names of segment_anything 1.0.
        model: what the caller takes it for (`vit_b`, `vit_l`, `vit_h`, `custom`); None to accept
            any geometry.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, of no SAM, or of another model.
        UsageError: `model` is no known name.
    """
    if model is not None and model not in MODEL_NAMES:
        raise UsageError(f"There is no model '{model}': take one of {', '.join(MODEL_NAMES)}.")
    state = read_state_dict(path)
    geometry = infer_geometry(state)
    if model is not None and model != geometry.model:
        raise CheckpointError(
            f"{path} holds {_describe(geometry)}, not {model}: "
            f"say --model {geometry.model} or give another checkpoint."
        )
    sam = build_sam(geometry)
    try:
        sam.load_state_dict(dict(state))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} does not fit a {geometry.model} SAM: {detail}") from None
    return sam, geometry


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, in fp32 on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or would have to run code to be read.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file {path}.")
    try:
        with warnings.catch_warnings():  # what torch warns of is either read or refused
            warnings.simplefilter("ignore")
            loaded = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} holds more than tensors and would run code when read, so it was not "
                "opened: convert it to a state dict of tensors or to safetensors."
            ) from None
        raise CheckpointError(_damaged(path)) from None
    except Exception:  # noqa: BLE001 - a damaged pickle fails in a dozen ways
        raise CheckpointError(_damaged(path)) from None
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise CheckpointError(
            f"{path} is no state dict: it has to map parameter names to tensors, as "
            "torch.save(sam.state_dict(), …) writes it."
        )
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in loaded.items()
    }


def infer_geometry(state: Mapping[str, Tensor]) -> SamGeometry:
    """The geometry of a SAM from the shapes of its parameters.

    The number of heads in the mask decoder leaves no trace in the shapes; it is 8, as in every
    published SAM.

    Raises:
        CheckpointError: the tensors are not those of a Segment Anything model.
    """
    try:
        return _read_geometry(state)
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"This is no Segment Anything checkpoint: {error} is missing or has another shape."
        ) from None
    except ValidationError as error:
        raise CheckpointError(
            f"This checkpoint has a geometry that no SAM has: {first_fault(error)}."
        ) from None


def _read_geometry(state: Mapping[str, Tensor]) -> SamGeometry:
    patch = state["image_encoder.patch_embed.proj.weight"].shape
    embed_dim, patch_size = patch[0], patch[2]
    grid = state["image_encoder.pos_embed"].shape[1]
    depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
    rel_pos = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    sides = [(shape[0] + 1) // 2 for shape in rel_pos]
    heads = embed_dim // rel_pos[0][1]
    official = {shape: name for name, shape in OFFICIAL.items()}
    return SamGeometry(
        model=official.get((embed_dim, depth, heads), "custom"),
        image_size=grid * patch_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        heads=heads,
        mlp_width=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0],
        # A window may be larger than the grid.
        window_size=next((side for side in sides if side != grid), grid),
        global_layers=tuple(index for index, side in enumerate(sides) if side == grid),
        prompt_dim=state["image_encoder.neck.0.weight"].shape[0],
        mask_in_channels=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        multimask_outputs=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        decoder_depth=_count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        decoder_mlp_width=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        iou_head_depth=_count(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
        iou_head_width=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in state)
    return len({match.group(1) for match in found if match})


def _describe(geometry: SamGeometry) -> str:
    if geometry.model != "custom":
        return f"a {geometry.model}"
    return (
        f"a SAM of its own geometry (width {geometry.embed_dim}, {geometry.depth} layers, "
        f"{geometry.heads} heads)"
    )


def _damaged(path: Path) -> str:
    return f"{path} is damaged or no checkpoint at all: it ends early or has another format."
