"""Makes the table: judges and times every member, and goes on after a stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np
import torch

from hwsearch.errors import DataError
from hwsearch.profiler.conditions import capture_conditions
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress
from hwsearch.records import Deployment, SubnetConfig, Target
from hwsearch.search.accuracy_cache import AccuracyCache
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import SearchData, accuracy_context, inherited_accuracy, search_data
from hwsearch.workflow.timing import ATTEMPTS, Stopwatch
from search_study.restricted import RestrictedSpace
from search_study.table import (
    AccuracyConditions,
    LatencyConditions,
    SearchTable,
    choice_columns,
)

SEED = 0
AT_ONCE = 8  # members that a process judges before it tells what it found
REPEATED = 0.05  # this share is timed again on another occasion, for the noise floor


@dataclass(frozen=True)
class Making:
    """What a table is made of, and where what was found is kept until it is whole.

    Attributes:
        supernet: a supernet's directory, or `demo`.
        data: a data folder, or `scenes`.
        views: images or objects that each accuracy is found on.
        members: which members; all of the restricted space but in a trial run.
        work: a folder; what is there is not made again.
    """

    supernet: str
    data: str
    views: int
    restricted: RestrictedSpace
    members: tuple[SubnetConfig, ...]
    target: Target
    work: Path
    progress: Progress

    @property
    def subnets(self) -> list[SubnetConfig]:
        """The supernet's subnets that the members mean."""
        return [self.restricted.expand(member) for member in self.members]


def judge_members(making: Making, *, jobs: int) -> list[float]:
    """The mIoU of every member, in their order.

    Args:
        making: what and where.
        jobs: processes that judge side by side, one thread each.
    """
    net, data = _opened(making.supernet, making.data, making.views)
    cache = _accuracies(making, net, data)
    open_ = [subnet for subnet in making.subnets if cache.get(Deployment(subnet=subnet)) is None]
    lots = [open_[start : start + AT_ONCE] for start in range(0, len(open_), AT_ONCE)]
    tasks = (
        joblib.delayed(_mious)(making.supernet, making.data, making.views, lot) for lot in lots
    )
    found = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
    with making.progress.task("judging", len(making.members)) as advance:
        advance(len(making.members) - len(open_))
        for lot, mious in zip(lots, found, strict=True):
            for subnet, miou in zip(lot, mious, strict=True):
                cache.put(Deployment(subnet=subnet), miou)
            advance(len(lot))
    return _known(cache, making.subnets)


def time_members(making: Making, settings: SessionSettings) -> None:
    """Time every member, and some once more; what is in the profile is not timed again.

    Raises:
        ProfileError: the reference can't be run.
    """
    net = load_supernet(making.supernet)
    stopwatch = Stopwatch(net, _store(making), settings, making.progress)
    for _ in range(ATTEMPTS):
        steady = stopwatch.profile.measured_ids
        left = [subnet for subnet in making.subnets if subnet.id not in steady]
        stopwatch.measure_all(left)
    twice = {line.subnet_id for line in stopwatch.profile.measurements if line.repeat == 1}
    count = max(2, round(REPEATED * len(making.members)))
    chosen = np.random.default_rng(SEED).permutation(len(making.members))[:count]
    again = [making.subnets[place] for place in chosen]
    stopwatch.measure_all([one for one in again if one.id not in twice], repeat=1)


def assemble(making: Making) -> SearchTable:
    """The table of what was judged and timed.

    Raises:
        DataError: something is lacking.
    """
    net, data = _opened(making.supernet, making.data, making.views)
    profile = _store(making).read(net.id)
    configs, latencies = profile.latencies(include_drifted=True)
    known_ms = dict(zip(configs, latencies, strict=True))
    untimed = [subnet for subnet in making.subnets if subnet not in known_ms]
    if untimed:
        raise DataError(
            f"{len(untimed)} of {len(making.members)} members have no latency: run --stage latency."
        )
    marked = [subnet for subnet in making.subnets if subnet.id not in profile.measured_ids]
    return SearchTable(
        supernet_id=net.id,
        weights_digest=net.weights_digest(),
        geometry=net.geometry,
        restricted=making.restricted,
        accuracy=AccuracyConditions(
            data=data.search.data,
            data_fingerprint=data.search.fingerprint,
            split=data.search_split,
            framing=data.search.framing,
            views=len(data.search.views),
            objects=data.search.instances,
        ),
        latency=LatencyConditions(
            target=making.target,
            noise_floor_percent=noise_floor(profile.measurements),
            marked=len(marked),
            conditions=capture_conditions(),
        ),
        choices=choice_columns(making.restricted, making.members),
        mious=tuple(
            round(miou, 6) for miou in _known(_accuracies(making, net, data), making.subnets)
        ),
        latencies_ms=tuple(round(known_ms[subnet], 5) for subnet in making.subnets),
    )


def _store(making: Making) -> ProfileStore:
    return ProfileStore(making.work / "profiles", making.target)


def _accuracies(making: Making, net: Supernet, data: SearchData) -> AccuracyCache:
    context = accuracy_context(net, data.search, data.search_split)
    return AccuracyCache(making.work / "accuracy.jsonl", context)


def _known(cache: AccuracyCache, subnets: Sequence[SubnetConfig]) -> list[float]:
    mious = [cache.get(Deployment(subnet=subnet)) for subnet in subnets]
    known = [miou for miou in mious if miou is not None]
    if len(known) < len(mious):
        raise DataError(
            f"{len(mious) - len(known)} of {len(mious)} members have no accuracy: run "
            "--stage accuracy."
        )
    return known


@lru_cache(maxsize=1)
def _opened(supernet: str, data: str, views: int) -> tuple[Supernet, SearchData]:
    framing = load_manifest(supernet).framing
    return load_supernet(supernet), search_data(data, framing=framing, max_views=views, seed=SEED)


@lru_cache(maxsize=1)
def _judge(supernet: str, data: str, views: int) -> Callable[[SubnetConfig], float]:
    torch.set_num_threads(1)
    net, opened = _opened(supernet, data, views)
    return inherited_accuracy(net, opened.search)


def _mious(supernet: str, data: str, views: int, lot: Sequence[SubnetConfig]) -> list[float]:
    judge = _judge(supernet, data, views)
    return [judge(subnet) for subnet in lot]
