"""The stage that makes a supernet out of a checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from segment_anything.modeling import Sam

import hwsearch
from hwsearch.checkpoint import load_checkpoint
from hwsearch.compute import compute_device
from hwsearch.data.dataset import Dataset
from hwsearch.data.open import open_dataset
from hwsearch.errors import CheckpointError, DataError, UsageError
from hwsearch.evaluation import EvaluationSet, default_batch, evaluate, evaluation_set
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Framing, SamGeometry, ScoreMethod
from hwsearch.space import default_space
from hwsearch.supernet.activations import activation_norms
from hwsearch.supernet.importance import layer_importance, with_removal_order
from hwsearch.supernet.ordering import rearranged, reorder
from hwsearch.supernet.scores import LayerScores, Ordering, magnitude_scores, wanda_scores
from hwsearch.supernet.spread import score_spreads
from hwsearch.supernet.store import (
    MANIFEST_NAME,
    SupernetManifest,
    load_manifest,
    save_supernet,
)
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.taylor import taylor_scores
from hwsearch.supernet.training.batches import BatchSettings, TrainingBatch, training_batches
from hwsearch.supernet.training.state import CHECKPOINT_NAME


@dataclass(frozen=True)
class SpaceChoices:
    """What the user may say about the search space; None takes `default_space`'s choice."""

    resolutions: tuple[int, ...] | None = None
    width_ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    head_ratios: tuple[float, ...] = (0.5, 0.75, 1.0)
    min_depth: int | None = None
    narrow_first: bool = False


@dataclass(frozen=True)
class Calibration:
    """Images that importance and ordering are found on, from the training splits of `sources`.

    `views` is shared evenly among the sources: so many whole images, or windows around objects.
    Taylor scores are found on as many views, drawn and flipped as in training; without `taylor`
    they are left out, and with them a backward pass that takes several GB at 1024 px.
    """

    sources: tuple[str, ...]
    views: int = 16
    framing: Framing = "image"
    taylor: bool = True

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
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Supernet, SupernetManifest]:
    """Make a supernet: order its neurons and heads, rank its layers, and write it.

    The largest subnet equals the checkpoint up to rounding.

    Args:
        checkpoint: `.pth` or `.safetensors` of a Segment Anything model.
        out: the supernet directory to write.
        calibration: images to find importance on.
        model: what the checkpoint has to be; None to accept any geometry.
        choices: the search space.
        ordering: the score that neurons and heads are sorted by; `none` leaves them.
        seed: draws the calibration images.
        device: what torch computes on, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: who shows the steps.

    Raises:
        CheckpointError: the checkpoint can't be used.
        DataError: the calibration data can't be used.
        UsageError: the search space can't be had, there is no such device, or `out` can't be
            written or holds a training.
        DeviceError: torch can't use it here.
    """
    progress = progress or SilentProgress()
    if ordering == "taylor" and not calibration.taylor:
        raise UsageError("Ordering by Taylor needs its scores: leave --no-taylor out.")
    choices = choices or SpaceChoices()
    computes_on = compute_device(device)
    _check_place(out)
    sam, geometry = load_checkpoint(checkpoint, model=model)
    space = default_space(
        geometry,
        resolutions=choices.resolutions,
        width_ratios=choices.width_ratios,
        head_ratios=choices.head_ratios,
        min_depth=choices.min_depth,
        narrow_first=choices.narrow_first,
    )
    datasets = [open_dataset(source, "train") for source in calibration.sources]
    sets = _calibration_sets(datasets, calibration, seed)
    supernet = Supernet(sam, geometry, space)
    supernet.sam.to(computes_on)

    def score(model: Sam) -> float:
        return fmean(evaluate(model, chosen, progress=progress).miou for chosen in sets)

    progress.log("Scoring neurons and heads.")
    norms = activation_norms(supernet, lambda: score(supernet.sam))
    scores: dict[ScoreMethod, tuple[LayerScores, ...]] = {
        "magnitude": magnitude_scores(supernet),
        "wanda": wanda_scores(supernet, norms),
    }
    if calibration.taylor:
        batches = _calibration_batches(datasets, geometry, calibration, seed, progress)
        try:
            scores["taylor"] = taylor_scores(supernet, batches)
        except DataError as error:
            if ordering == "taylor":
                raise
            progress.log(f"Taylor scores are left out. {error}")
    if ordering != "none":
        orders = reorder(supernet, scores[ordering])
        scores = {method: rearranged(layers, orders) for method, layers in scores.items()}
    importance = layer_importance(supernet, score, progress=progress)
    supernet = Supernet(supernet.sam, geometry, with_removal_order(space, importance), importance)
    manifest = SupernetManifest(
        geometry=geometry,
        space=supernet.space,
        importance=importance,
        scores=score_spreads(scores, space),
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


def _check_place(out: Path) -> None:
    """Refuse, before the work, a place that can't be written, or where a training would be lost."""
    try:
        trained = (out / MANIFEST_NAME).exists() and load_manifest(out.absolute()).history
    except CheckpointError as error:
        raise UsageError(f"{error} Name another --out, or delete it yourself.") from None
    if trained or (out / CHECKPOINT_NAME).exists():
        raise UsageError(
            f"{out} holds a supernet that was trained, which building would overwrite: name "
            "another --out, or delete it yourself."
        )
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(f"A supernet can't be written to {out}: name another --out.")


def _calibration_sets(
    datasets: Sequence[Dataset], calibration: Calibration, seed: int
) -> list[EvaluationSet]:
    share = calibration.views // len(datasets)
    return [
        evaluation_set(dataset, framing=calibration.framing, max_views=share, seed=seed)
        for dataset in datasets
    ]


def _calibration_batches(
    datasets: Sequence[Dataset],
    geometry: SamGeometry,
    calibration: Calibration,
    seed: int,
    progress: Progress,
) -> Iterator[TrainingBatch]:
    """Training batches with about as many images as there are calibration views."""
    images = min(default_batch(geometry.image_size), calibration.views)
    count = math.ceil(calibration.views / images)
    batches = training_batches(
        datasets,
        resolution=geometry.image_size,
        mask_size=4 * geometry.image_size // geometry.patch_size,
        settings=BatchSettings(
            images=images, whole_image_share=float(calibration.framing == "image")
        ),
        seed=seed,
        start=0,
        stop=count,
    )
    with progress.task("Taylor scores", count) as advance:
        for batch in batches:
            yield batch
            advance(1)


def _calibration_note(sets: Sequence[EvaluationSet]) -> str:
    return ", ".join(f"{len(chosen.views)} views of {chosen.data} (train)" for chosen in sets)
