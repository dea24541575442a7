"""The supernet directory: `supernet.json` and `weights.safetensors`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors.torch import save_file

from hwsearch.checkpoint import read_state_dict
from hwsearch.errors import CheckpointError
from hwsearch.files import replace_file, write_text
from hwsearch.records import (
    Framing,
    LayerImportance,
    LayerSpread,
    Record,
    SamGeometry,
    first_fault,
)
from hwsearch.sam import build_sam
from hwsearch.space import SearchSpace
from hwsearch.supernet.scores import Ordering
from hwsearch.supernet.supernet import Supernet

MANIFEST_NAME = "supernet.json"
WEIGHTS_NAME = "weights.safetensors"
DEMO_DIRECTORY = Path(__file__).parents[1] / "demo"


class SupernetManifest(Record):
    """What a supernet directory says of itself, and of which weights.

    `importance` and `scores` are what its layers, and their neurons and heads, were worth when it
    was built; `ordering` is the method that neurons and heads were sorted by.
    `framing` is how the model expects to see its data, the default of every evaluation.
    `provenance` tells what it was made from; `history` has one entry for each training.
    """

    schema_version: Literal[1] = 1
    weights_sha256: str | None = None
    geometry: SamGeometry
    space: SearchSpace
    importance: tuple[LayerImportance, ...] = ()
    scores: tuple[LayerSpread, ...] = ()
    ordering: Ordering = "none"
    framing: Framing = "image"
    provenance: dict[str, str] = Field(default_factory=dict)
    history: tuple[dict[str, float | int | str], ...] = ()

    @model_validator(mode="after")
    def _scores_are_of_all_layers(self) -> Self:
        methods = [set(layer.methods) for layer in self.scores]
        if self.scores and (len(methods) != self.geometry.depth or not methods[0]):
            raise ValueError(f"scores are of {len(methods)} layers, not {self.geometry.depth}")
        if any(of_layer != methods[0] for of_layer in methods):
            raise ValueError("scores are not of the same methods in all layers")
        return self


def save_supernet(
    directory: Path, supernet: Supernet, manifest: SupernetManifest, *, half: bool = False
) -> None:
    """Write a supernet directory; weights first, so that a manifest always has its weights.

    Args:
        directory: made if it does not exist.
        supernet: whose weights are written.
        manifest: what goes into `supernet.json`.
        half: store the weights in fp16, for half the size.
    """
    dtype = torch.float16 if half else torch.float32
    weights = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, tensor in supernet.sam.state_dict().items()
    }
    with replace_file(directory / WEIGHTS_NAME) as temporary:
        save_file(weights, temporary)
    stamped = manifest.model_copy(update={"weights_sha256": _sha256(directory / WEIGHTS_NAME)})
    write_text(directory / MANIFEST_NAME, stamped.model_dump_json(indent=1) + "\n")


def load_supernet(path: Path | str) -> Supernet:
    """Read a supernet directory; the name `demo` stands for the one that is shipped.

    Raises:
        CheckpointError: the directory is missing or damaged.
    """
    directory = supernet_directory(path)
    manifest = load_manifest(directory)
    weights = directory / WEIGHTS_NAME
    state = read_state_dict(weights)
    sam = build_sam(manifest.geometry)
    try:
        sam.load_state_dict(state)
    except RuntimeError:
        raise CheckpointError(
            f"The weights in {directory} do not fit its {MANIFEST_NAME}: build it again."
        ) from None
    if manifest.weights_sha256 is not None and _sha256(weights) != manifest.weights_sha256:
        raise CheckpointError(
            f"{weights} is not the file that {MANIFEST_NAME} describes: one of them was replaced. "
            "Build or train the supernet again."
        )
    return Supernet(sam, manifest.geometry, manifest.space, manifest.importance)


def load_manifest(path: Path | str) -> SupernetManifest:
    """Read `supernet.json` alone.

    Raises:
        CheckpointError: it is missing or not of the known form.
    """
    directory = supernet_directory(path)
    file = directory / MANIFEST_NAME
    if not file.is_file():
        raise CheckpointError(
            f"{directory} is no supernet: it has no {MANIFEST_NAME}. "
            "Make one with 'hwsearch supernet build', or say 'demo' for the shipped one."
        )
    try:
        return SupernetManifest.model_validate_json(file.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else "no text"
        raise CheckpointError(f"{file} is damaged: {fault}.") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def supernet_directory(path: Path | str) -> Path:
    """The directory that a SUPERNET argument names."""
    return DEMO_DIRECTORY if str(path) == "demo" else Path(path)
