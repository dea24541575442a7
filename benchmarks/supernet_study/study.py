"""What a study of one base model and one data mix is given, and where it keeps its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from hwsearch.compute import compute_device
from hwsearch.data.dataset import SPLITS, distinct_names
from hwsearch.data.open import has_split, open_dataset
from hwsearch.evaluation import EvaluationSet, evaluate, evaluation_set
from hwsearch.evaluation.answers import ask
from hwsearch.evaluation.segmenter import SamSegmenter
from hwsearch.files import write_text
from hwsearch.progress import Progress
from hwsearch.records import Framing, SubnetConfig, short_digest
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.settings import TrainSettings
from hwsearch.workflow.accuracy import search_data

Result = TypeVar("Result")
Row = dict[str, Any]  # one line of a table, as JSON holds it


@dataclass(frozen=True)
class Study:
    """One base model on one mix of data sets, and how much is spent on it.

    Attributes:
        start: the untrained supernet directory, as `hwsearch supernet build` writes it.
        checkpoint: the base model that it was built from.
        data: data folders or `scenes`.
        work: where checkpoints and results are kept; what is there is not done again.
        rounds: of the supernet's training and of all that is compared with it: each round goes on
            from the weights that the last one left, with a schedule of its own.
        search_views: views of each set that subnets are chosen by.
        final_views: views of each set that figures are quoted on; none of the former.
        proposals: subnets that the search for a band's best one adds to those that it begins with.
        finalists: of all of these, how many are compared on all search views.
        outside: data folders that no training saw, whose split `val` is looked at as well.
        device: what torch computes on.
        data_workers: processes that prepare the batches of a training.
    """

    start: Path
    checkpoint: Path
    data: tuple[str, ...]
    work: Path
    rounds: tuple[TrainSettings, ...]
    search_views: int
    final_views: int
    outside: tuple[str, ...]
    progress: Progress
    proposals: int = 36
    finalists: int = 8
    device: str = "cpu"
    data_workers: int = 0

    @cached_property
    def digest(self) -> str:
        """Of all that results depend on; those of another study are not mistaken for this one's."""
        data = [
            open_dataset(source, split).fingerprint
            for source in self.data
            for split in SPLITS
            if has_split(source, split)
        ]
        outside = [open_dataset(source, "val").fingerprint for source in self.outside]
        weights = [load_supernet(self.start).weights_digest()]
        if self.checkpoint.exists():  # only the ablation needs it
            weights.append(hashlib.sha256(self.checkpoint.read_bytes()).hexdigest())
        views = [self.search_views, self.final_views]
        rounds = [asdict(settings) for settings in self.rounds]
        return short_digest(json.dumps([weights, data, outside, views, rounds]))

    @property
    def settings(self) -> TrainSettings:
        """Of the first round, which shorter trainings vary."""
        return self.rounds[0]

    def untrained(self) -> Supernet:
        """The supernet to start from, anew on the device."""
        net = load_supernet(self.start)
        net.sam.to(compute_device(self.device))
        return net

    @cached_property
    def framing(self) -> Framing:
        """How the model sees the data."""
        return load_manifest(self.start).framing

    @cached_property
    def search_sets(self) -> list[EvaluationSet]:
        """What decides between subnets."""
        return [self._views(source, self.search_views)[0] for source in self.data]

    @cached_property
    def final_sets(self) -> list[EvaluationSet]:
        """What figures are quoted on: the split `test`, or the half of `val` not searched on."""
        return [self._views(source, self.final_views)[1] for source in self.data]

    @cached_property
    def outside_sets(self) -> list[EvaluationSet]:
        """Images from other sources than the training's."""
        return [
            evaluation_set(
                open_dataset(source, "val"), framing=self.framing, max_views=self.final_views
            )
            for source in self.outside
        ]

    def _views(self, source: str, views: int) -> tuple[EvaluationSet, EvaluationSet]:
        found = search_data(source, framing=self.framing, max_views=views)
        return found.search, found.final

    def kept(self, name: str, compute: Callable[[], Result]) -> Result:
        """The JSON result of that name, computed and kept if it is not there yet."""
        path = self.work / "results" / self.digest / f"{name}.json"
        if not path.exists():
            write_text(path, json.dumps(compute(), indent=1) + "\n")
        found: Result = json.loads(path.read_text())
        return found


def mean_miou(supernet: Supernet, config: SubnetConfig, sets: list[EvaluationSet]) -> float:
    """Box-prompted mIoU of an inherited subnet, each set weighing alike."""
    sam = supernet.extract(config)
    return fmean(evaluate(sam, chosen).miou for chosen in sets)


def ious_by_set(
    supernet: Supernet, config: SubnetConfig, sets: list[EvaluationSet]
) -> dict[str, list[float]]:
    """IoU of every object of each set, in the order of its views."""
    segmenter = SamSegmenter(supernet.extract(config))
    return {
        name: ask(segmenter, chosen)["box"].selected.round(4).tolist()
        for name, chosen in zip(names_of(sets), sets, strict=True)
    }


def names_of(sets: list[EvaluationSet]) -> list[str]:
    """One name for each set, none twice."""
    return distinct_names([chosen.data for chosen in sets])
