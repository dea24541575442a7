"""The stage that makes a supernet out of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from segment_anything.modeling import Sam

import hwsearch
from hwsearch.checkpoint import load_checkpoint
from hwsearch.data.open import open_dataset
from hwsearch.errors import UsageError
from hwsearch.evaluation import EvaluationSet, evaluate, evaluation_set
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Framing
from hwsearch.space import default_space
from hwsearch.supernet.importance import layer_importance, with_removal_order
from hwsearch.supernet.ordering import collect_statistics, reorder
from hwsearch.supernet.store import SupernetManifest, save_supernet
from hwsearch.supernet.supernet import Supernet

Ordering = Literal["wanda", "none"]


@dataclass(frozen=True)
class SpaceChoices:
    """What the user may say about the search space; None takes `default_space`'s choice."""

    resolutions: tuple[int, ...] | None = None
    width_ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    head_ratios: tuple[float, ...] = (0.5, 0.75, 1.0)
    min_depth: int | None = None


@dataclass(frozen=True)
class Calibration:
    """Images that importance and ordering are found on, from the training splits of `sources`.

    `views` is shared evenly among the sources: so many whole images, or windows around objects.
    """

    sources: tuple[str, ...]
    views: int = 16
    framing: Framing = "image"

    def __post_init__(self) -> None:
        if not self.sources or self.views < len(self.sources):
            raise UsageError(
                f"{self.views} calibration views can't be taken from {len(self.sources)} data "
                "sets: take at least one data set, and a view of each."
            )


def build_supernet(
    checkpoint: Path,
    *,
    out: Path,
    calibration: Calibration,
    model: str | None = None,
    choices: SpaceChoices | None = None,
    ordering: Ordering = "wanda",
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Supernet, SupernetManifest]:
    """Make a supernet: order its neurons and heads, rank its layers, and write it.

    The largest subnet equals the checkpoint: to the last bit without ordering, up to rounding
    with it.

    Args:
        checkpoint: `.pth` or `.safetensors` of a Segment Anything model.
        out: the supernet directory to write.
        calibration: images to find importance on.
        model: what the checkpoint has to be; None to accept any geometry.
        choices: the search space.
        ordering: `wanda` sorts neurons and heads by importance, `none` leaves them.
        seed: draws the calibration images.
        progress: who shows the steps.

    Raises:
        CheckpointError: the checkpoint can't be used.
        DataError: the calibration data can't be used.
        UsageError: the search space can't be had.
    """
    progress = progress or SilentProgress()
    choices = choices or SpaceChoices()
    sam, geometry = load_checkpoint(checkpoint, model=model)
    space = default_space(
        geometry,
        resolutions=choices.resolutions,
        width_ratios=choices.width_ratios,
        head_ratios=choices.head_ratios,
        min_depth=choices.min_depth,
    )
    sets = _calibration_sets(calibration, seed)
    supernet = Supernet(sam, geometry, space)

    def score(model: Sam) -> float:
        return fmean(evaluate(model, chosen, progress=progress).miou for chosen in sets)

    if ordering == "wanda":
        progress.log("Ordering neurons and heads by their importance.")
        statistics = collect_statistics(supernet, lambda: score(supernet.sam))
        reorder(supernet, statistics)
    importance = layer_importance(supernet, score, progress=progress)
    supernet = Supernet(supernet.sam, geometry, with_removal_order(space, importance), importance)
    manifest = SupernetManifest(
        geometry=geometry,
        space=supernet.space,
        importance=importance,
        ordering=ordering,
        framing=calibration.framing,
        provenance={
            "checkpoint": checkpoint.name,
            "calibration": _calibration_note(sets),
            "hwsearch": hwsearch.__version__,
        },
    )
    save_supernet(out, supernet, manifest)
    return supernet, manifest


def _calibration_sets(calibration: Calibration, seed: int) -> list[EvaluationSet]:
    share = calibration.views // len(calibration.sources)
    return [
        evaluation_set(
            open_dataset(source, "train"), framing=calibration.framing, max_views=share, seed=seed
        )
        for source in calibration.sources
    ]


def _calibration_note(sets: Sequence[EvaluationSet]) -> str:
    return ", ".join(f"{len(chosen.views)} views of {chosen.data} (train)" for chosen in sets)
