"""Measuring on until a latency predictor is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwsearch.predictor.acquisition import next_subnets
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiles import Profile
from hwsearch.records import SubnetConfig, Target
from hwsearch.supernet.supernet import Supernet

CANDIDATES = 1024

StoppedBy = Literal["asked error", "noise floor", "most samples", "all measured"]


@dataclass(frozen=True)
class Goal:
    """When there are measurements enough.

    Attributes:
        error_percent: cross-validated error of the latency predictor that will do. An error at
            the noise floor will do as well: below it, none can be told from another.
        max_samples: distinct subnets after which it is enough in any case.
        near_ms: target latencies near which subnets are measured first.
    """

    error_percent: float
    max_samples: int
    near_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Standing:
    """How good a predictor the measurements so far make; percent."""

    measured: int
    error_percent: float
    noise_floor_percent: float | None

    def reached(self, goal: Goal) -> StoppedBy | None:
        """Which of the asked error and the noise floor is reached; None: neither."""
        if self.error_percent <= goal.error_percent:
            return "asked error"
        floor = self.noise_floor_percent
        return "noise floor" if floor is not None and self.error_percent <= floor else None

    def __str__(self) -> str:
        floor = self.noise_floor_percent
        beside = "" if floor is None else f", noise floor {floor:.2f} %"
        return f"{self.measured} subnets: cross-validated error {self.error_percent:.2f} %{beside}"


def fitted(supernet: Supernet, target: Target, profile: Profile) -> LatencyPredictor | None:
    """A latency predictor on the unmarked measurements; None while there are too few."""
    predictor = LatencyPredictor(supernet.geometry, target, supernet.id)
    configs, latencies_ms = profile.latencies()
    if len(configs) < predictor.min_samples:
        return None
    return predictor.fit(configs, latencies_ms)


def standing(predictor: LatencyPredictor, profile: Profile) -> Standing:
    """How good it is, beside the noise floor of what it was fitted on."""
    return Standing(
        measured=len(predictor.configs_),
        error_percent=predictor.cv_.mape_percent,
        noise_floor_percent=noise_floor(m for m in profile.measurements if not m.drifted),
    )


def most_telling(
    supernet: Supernet,
    predictor: LatencyPredictor,
    count: int,
    *,
    tried: Sequence[str],
    near_ms: Sequence[float] = (),
    seed: int = 0,
) -> list[SubnetConfig]:
    """Subnets whose latency would teach the predictor most, of many random ones.

    Args:
        supernet: whose subnets.
        predictor: fitted on what is measured so far.
        count: how many.
        tried: ids that are not to come again, whatever became of their measurement.
        near_ms: target latencies that matter most.
        seed: draws the random ones, with the number of subnets measured so far.
    """
    rng = np.random.default_rng([seed, len(predictor.configs_)])
    drawn = dict.fromkeys(supernet.space.sample(rng) for _ in range(CANDIDATES))
    known = set(tried)
    candidates = [config for config in drawn if config.id not in known]
    return next_subnets(predictor, candidates, count, near_ms=near_ms)
