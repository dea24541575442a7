"""One search from its target to measured picks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import PositiveInt

from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.errors import InfeasibleError, UsageError
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import (
    Candidate,
    Record,
    SamGeometry,
    Scope,
    SubnetConfig,
    Target,
    short_digest,
)
from hwsearch.search.accuracy_cache import AccuracyCache, AccuracyContext
from hwsearch.search.moves import fastest
from hwsearch.search.objectives import Objectives
from hwsearch.search.pareto import pareto_front
from hwsearch.search.study import StudyIdentity, SubnetStudy
from hwsearch.search.verify import verify_front
from hwsearch.space import SearchSpace

DEFAULT_TRIALS = 80


class SearchOutcome(Record):
    """What a search found.

    `candidates` are all subnets that were judged, `front` those measured within the target that
    no other such dominates, by ascending latency; `pick` is the most accurate of the front.
    """

    trials: PositiveInt
    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    largest: Candidate
    pick: Candidate


def run_search(
    objectives: Objectives,
    *,
    space: SearchSpace,
    geometry: SamGeometry,
    accuracy: AccuracyContext,
    target: Target,
    target_latency_ms: float,
    study: str,
    storage: str,
    cache: Path,
    scope: Scope = "full",
    trials: int = DEFAULT_TRIALS,
    seed: int = 0,
    progress: Progress | None = None,
) -> SearchOutcome:
    """Find the most accurate subnets whose measured latency meets a target.

    Args:
        objectives: how to judge, predict and measure subnets.
        space: where the subnets come from.
        geometry: the full encoder's sizes, for parameters and MACs.
        accuracy: what accuracies depend on; keys the cache and guards the study.
        target: where latencies are measured; guards the study.
        target_latency_ms: the latency that a pick may not exceed, in milliseconds.
        study: name of the study; one of this name and purpose is continued.
        storage: Optuna storage URL.
        cache: JSON-lines file of accuracies, shared by all studies.
        scope: which part of the model latencies cover.
        trials: how many subnets the study judges in all, earlier ones included. Where a measured
            pick misses the target, up to three tenths more are added.
        seed: seeds everything that is drawn.
        progress: told what goes on.

    Raises:
        InfeasibleError: no subnet meets the target; the message names the nearest.
        UsageError: the storage can't be used, the study was made for another purpose, or `trials`
            or `target_latency_ms` is not positive.
        DataError: an accuracy came out as no number between 0 and 1.
    """
    if trials < 1 or not 0 < target_latency_ms < math.inf:
        raise UsageError(
            f"A search needs a positive number of trials and a positive target latency, "
            f"not {trials} trials and {target_latency_ms:g} ms."
        )
    progress = progress or SilentProgress()
    objectives = replace(
        objectives, evaluate=AccuracyCache(cache, accuracy).remember(objectives.evaluate)
    )
    subnets = SubnetStudy(
        name=study,
        storage=storage,
        identity=StudyIdentity(
            accuracy=accuracy,
            space_digest=short_digest(space.to_json()),
            target_fingerprint=target.fingerprint,
            scope=scope,
            target_latency_ms=target_latency_ms,
        ),
        space=space,
        objectives=objectives,
        seed=seed,
    )
    measured_ms = _measure_lowest(
        objectives, space=space, target=target, target_ms=target_latency_ms, progress=progress
    )
    subnets.run_until(trials, progress=progress)

    def judged() -> dict[SubnetConfig, float]:
        return {row.subnet: row.miou for row in subnets.judged}

    def search_on(number: int) -> None:
        subnets.run_until(trials + number * math.ceil(trials / 10), progress=progress)

    measured_ms = verify_front(
        judged,
        objectives=objectives,
        target_ms=target_latency_ms,
        measured_ms=measured_ms,
        companions=[space.largest],
        search_on=search_on,
        progress=progress,
    )
    found = judged()
    mious = found | {c: objectives.evaluate(c) for c in measured_ms if c not in found}
    candidates = _candidates(mious, measured_ms, objectives=objectives, geometry=geometry)
    front = _measured_front(candidates, target_latency_ms)
    largest = next(row for row in candidates if row.subnet == space.largest)
    return SearchOutcome(
        trials=len(found), candidates=candidates, front=front, largest=largest, pick=front[-1]
    )


def _measure_lowest(
    objectives: Objectives,
    *,
    space: SearchSpace,
    target: Target,
    target_ms: float,
    progress: Progress,
) -> dict[SubnetConfig, float]:
    """Latencies of the smallest subnet and of the one predicted to be fastest.

    Raises:
        InfeasibleError: neither meets the target, so no trial would.
    """
    lowest = list(dict.fromkeys([space.smallest, fastest(space, latency=objectives.predict)]))
    predicted_ms = dict(zip(lowest, objectives.predict(lowest).tolist(), strict=True))
    progress.log("Measuring the smallest subnet: does anything meet the target?")
    latencies = [float(latency_ms) for latency_ms in objectives.measure(lowest)]
    measured_ms = dict(zip(lowest, latencies, strict=True))
    nearest = min(lowest, key=lambda config: measured_ms[config])
    nearest_ms = measured_ms[nearest]
    if nearest_ms > target_ms:
        raise InfeasibleError(
            f"No subnet meets {target_ms:g} ms on {target.name}: the nearest, {nearest.id} "
            f"({nearest.depth} layers at {nearest.resolution} px), took {nearest_ms:.2f} ms "
            f"({predicted_ms[nearest]:.2f} ms predicted), "
            f"{100 * (nearest_ms / target_ms - 1):.1f} % over; "
            f"allow at least {_round_up(nearest_ms):g} ms, or build a supernet whose space goes "
            f"below {space.min_depth} layers and {space.resolutions[0]} px, or take a faster "
            "runtime or precision."
        )
    objectives.refit(lowest, latencies)
    return measured_ms


def _round_up(latency_ms: float) -> float:
    """Three significant digits, never less."""
    unit = 10.0 ** (math.floor(math.log10(latency_ms)) - 2)
    return round(math.ceil(latency_ms / unit) * unit, 6)


def _candidates(
    mious: Mapping[SubnetConfig, float],
    measured_ms: Mapping[SubnetConfig, float],
    *,
    objectives: Objectives,
    geometry: SamGeometry,
) -> tuple[Candidate, ...]:
    configs = list(mious)
    rows = zip(configs, objectives.predict(configs), objectives.upper(configs), strict=True)
    return tuple(
        Candidate(
            subnet=config,
            params=encoder_params(geometry, config),
            macs=encoder_macs(geometry, config),
            miou=mious[config],
            predicted_ms=float(predicted_ms),
            upper_ms=float(upper_ms),
            latency_ms=measured_ms.get(config),
        )
        for config, predicted_ms, upper_ms in rows
    )


def _measured_front(candidates: Sequence[Candidate], target_ms: float) -> tuple[Candidate, ...]:
    points = {
        row: (row.miou, row.latency_ms)
        for row in candidates
        if row.latency_ms is not None and row.latency_ms <= target_ms
    }
    rows = list(points)
    return tuple(rows[place] for place in pareto_front(list(points.values())))
