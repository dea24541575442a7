"""The accuracy of one subnet, in torch or as a bundle, on any number of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hwsearch.compute import compute_device
from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.data.dataset import SPLITS, Split, distinct_names
from hwsearch.data.open import open_dataset
from hwsearch.errors import UsageError
from hwsearch.evaluation import (
    SIZE_BOUNDS,
    EvaluationSet,
    SamSegmenter,
    Segmenter,
    accuracy_of,
    box_floor,
    evaluation_set,
)
from hwsearch.evaluation.answers import ask
from hwsearch.evaluation.intervals import Clustered, mean_interval
from hwsearch.evaluation.prompts import Prompt
from hwsearch.export.manifest import MANIFEST_FILE
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Accuracy, Framing, SamGeometry, SubnetConfig
from hwsearch.supernet.store import load_manifest, load_supernet, supernet_directory
from hwsearch.workflow.bundle_segmenter import open_segmenter
from hwsearch.workflow.subnets import named_subnet


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate on.

    Args:
        data: data folders, or `scenes`.
        split: `train`, `val` or `test`.
        max_views: at most so many whole images, or single objects, of each set.
        framing: how the model sees the data; None for what the model was made for.
        seed: draws the views.
        device: what torch computes on, `cpu`, `cuda`, `cuda:N` or `mps`; bundles run on the CPU.
    """

    data: Sequence[str]
    split: str = "val"
    max_views: int | None = 500
    framing: Framing | None = None
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class SubnetAccuracy:
    """A subnet's accuracy by data set; means over sets weigh each set alike.

    Every set is prompted with ground-truth boxes and with one click an object. `box_floors` is
    what the box itself, taken as the mask, would score on each set. `miou_interval` is a 95 %
    bootstrap interval of `miou`, for which the images of each set are resampled.
    """

    subnet: SubnetConfig
    params: int
    macs: int
    sets: dict[str, Accuracy]
    box_floors: dict[str, float]
    miou_interval: tuple[float, float] | None

    @property
    def miou(self) -> float:
        """Mean over the sets, by box, with the mask that the predicted IoU selects."""
        return fmean(accuracy.miou for accuracy in self.sets.values())

    @property
    def miou_oracle(self) -> float:
        """Mean over the sets, by box, with the best mask by ground truth."""
        return fmean(accuracy.miou_oracle for accuracy in self.sets.values())

    @property
    def one_click_miou(self) -> float | None:
        """Mean over the sets, by one click, with the mask that the predicted IoU selects."""
        return _mean_of_known([accuracy.one_click_miou for accuracy in self.sets.values()])

    @property
    def one_click_miou_oracle(self) -> float | None:
        """Mean over the sets, by one click, with the best mask by ground truth."""
        return _mean_of_known([accuracy.one_click_miou_oracle for accuracy in self.sets.values()])

    @property
    def miou_by_size(self) -> dict[str, float]:
        """Means of `miou` over the sets that have objects of the size."""
        by_size = {
            size: [a.miou_by_size[size] for a in self.sets.values() if size in a.miou_by_size]
            for size in SIZE_BOUNDS
        }
        return {size: fmean(mious) for size, mious in by_size.items() if mious}

    def as_json(self) -> dict[str, object]:
        """The form that `hwsearch supernet evaluate --json` prints."""
        return {
            "miou": self.miou,
            "miou_interval": self.miou_interval,
            "miou_oracle": self.miou_oracle,
            "miou_by_size": self.miou_by_size,
            "one_click_miou": self.one_click_miou,
            "one_click_miou_oracle": self.one_click_miou_oracle,
            "box_floor": fmean(self.box_floors.values()),
            "instances": sum(accuracy.instances for accuracy in self.sets.values()),
            "params": self.params,
            "macs": self.macs,
            "subnet": self.subnet.model_dump(),
            "sets": {
                name: accuracy.model_dump() | {"box_floor": self.box_floors[name]}
                for name, accuracy in self.sets.items()
            },
        }


def evaluate_model(
    model: Path | str,
    plan: EvaluationPlan,
    *,
    subnet: str | None = None,
    progress: Progress | None = None,
) -> SubnetAccuracy:
    """Evaluate a subnet of a supernet, or a bundle.

    Args:
        model: a supernet directory, `demo`, or a bundle.
        plan: what to evaluate on.
        subnet: as `named_subnet` takes it, None for `largest`; a bundle holds one subnet and takes
            no such choice.
        progress: who shows the images.

    Raises:
        CheckpointError: the supernet can't be read.
        ExportError: the bundle can't be read.
        DataError: a data set can't be used.
        UsageError: there is no such subnet or split, or a subnet is asked of a bundle.
    """
    directory = supernet_directory(model)
    if not (directory / MANIFEST_FILE).is_file():
        return evaluate_subnet(model, plan, subnet=subnet or "largest", progress=progress)
    if subnet is not None:
        raise UsageError(f"{model} is a bundle, which holds a single subnet: leave --subnet out.")
    if plan.device != "cpu":
        raise UsageError(
            f"{model} is a bundle, which ONNX Runtime evaluates on the CPU: leave --device out."
        )
    return evaluate_bundle(directory, plan, progress=progress)


def evaluate_subnet(
    supernet: Path | str,
    plan: EvaluationPlan,
    *,
    subnet: str = "largest",
    progress: Progress | None = None,
) -> SubnetAccuracy:
    """Evaluate a subnet, which `named_subnet` finds, in torch.

    Raises:
        CheckpointError: the supernet can't be read.
        DataError: a data set can't be used.
        UsageError: there is no such subnet, split or device.
        DeviceError: torch can't use it here.
    """
    loaded = load_supernet(supernet)
    config = named_subnet(loaded, subnet)
    loaded.sam.to(compute_device(plan.device))
    return _evaluate(
        SamSegmenter(loaded.extract(config)),
        plan,
        framing=plan.framing or load_manifest(supernet).framing,
        geometry=loaded.geometry,
        subnet=config,
        progress=progress,
    )


def evaluate_bundle(
    bundle: Path, plan: EvaluationPlan, *, progress: Progress | None = None
) -> SubnetAccuracy:
    """Evaluate a bundle's encoder and decoder as they are, with ONNX Runtime on the CPU.

    Without a framing in the plan, it is that of the accuracy in the bundle's manifest.

    Raises:
        ExportError: the bundle can't be read.
        DeviceError: ONNX Runtime can't load its files.
        DataError: a data set can't be used.
        UsageError: there is no such split, or nothing tells the framing.
    """
    with open_segmenter(bundle) as (manifest, segmenter):
        framing = plan.framing or (manifest.accuracy.framing if manifest.accuracy else None)
        if framing is None:
            raise UsageError(f"{bundle} does not tell how it sees data: say --framing.")
        return _evaluate(
            segmenter,
            plan,
            framing=framing,
            geometry=manifest.geometry,
            subnet=manifest.subnet,
            progress=progress,
        )


def _evaluate(
    segmenter: Segmenter,
    plan: EvaluationPlan,
    *,
    framing: Framing,
    geometry: SamGeometry,
    subnet: SubnetConfig,
    progress: Progress | None,
) -> SubnetAccuracy:
    split = named_split(plan.split)
    chosen = [
        evaluation_set(
            open_dataset(source, split), framing=framing, max_views=plan.max_views, seed=plan.seed
        )
        for source in plan.data
    ]
    judged = [_judge(segmenter, views, progress or SilentProgress()) for views in chosen]
    names = distinct_names([views.data for views in chosen])
    return SubnetAccuracy(
        subnet=subnet,
        params=encoder_params(geometry, subnet),
        macs=encoder_macs(geometry, subnet),
        sets=dict(zip(names, (accuracy for accuracy, _ in judged), strict=True)),
        box_floors=dict(zip(names, map(box_floor, chosen), strict=True)),
        miou_interval=mean_interval([ious for _, ious in judged]),
    )


def _judge(
    segmenter: Segmenter, chosen: EvaluationSet, progress: Progress
) -> tuple[Accuracy, Clustered]:
    """The accuracy by box and by click, and the IoUs by box that intervals are made from."""
    prompts: tuple[Prompt, ...] = ("box", "point")
    for_ap = prompts[:1] if chosen.has_classes else ()
    answers = ask(segmenter, chosen, prompts=prompts, keep_masks=for_ap, progress=progress)
    return accuracy_of(chosen, answers), Clustered(answers["box"].selected, chosen.clusters)


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def named_split(text: str) -> Split:
    """The split of that name.

    Raises:
        UsageError: there is none.
    """
    for split in SPLITS:
        if split == text:
            return split
    raise UsageError(f"There is no split {text!r}: take {', '.join(SPLITS)}.")
