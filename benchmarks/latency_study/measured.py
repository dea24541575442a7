"""This project's own profiles: errors of the latency models by the number of measured subnets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import ProfileError
from hwsearch.predictor.acquisition import next_subnets
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.models import LatencyModel, baselines, candidates
from hwsearch.predictor.sampling import NEIGHBOURS
from hwsearch.profiler.noise import repeat_errors
from hwsearch.profiles import ProfileStore, StoredTarget
from hwsearch.records import Measurement, SamGeometry, SubnetConfig, Target
from hwsearch.session_errors import freed_of
from latency_study.baselines import NAMES, baseline_predictions, table_for
from latency_study.figures import (
    COVERAGE,
    DEFAULT,
    Held,
    Row,
    Rows,
    error_of_share,
    errors_of,
    front,
    means_of,
    shares_held,
)
from latency_study.sample import spread_rows

Array = NDArray[np.float64]

DRAWS = 5
# What a fit chooses is judged on more draws: an interval's coverage depends on the 32 subnets that
# it was calibrated on, and five draws of them leave it uncertain by several percent.
DEFAULT_DRAWS = 24
LEARNED = "default, subnets chosen as it learns"
BY_SIZE = "default, subnets chosen by size alone"
AS_MEASURED = "default, on latencies as measured"
JUDGED_AS_MEASURED = "default, fitted and judged on latencies as measured"
FEW = 32  # up to which these three are told
LEARNING_START, LEARNING_GROUP, LEARNING_MOST = 16, 8, 64


@dataclass(frozen=True)
class NoiseFloor:
    """Mean error in percent of true latencies against one measurement, and how sure that is.

    Attributes:
        percent: None where no subnet was measured twice.
        error: its standard error, by the sessions of the repeats; None where there is one alone.
        subnets: how many were measured twice.
        sessions: in how many sessions.
    """

    percent: float | None
    error: float | None
    subnets: int
    sessions: int

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> NoiseFloor:
        """What the repeats among measurements tell."""
        errors = repeat_errors(measurements)
        if not errors:
            return cls(None, None, 0, 0)
        percents = np.array([error.percent for error in errors])
        _, session = np.unique([error.session_id for error in errors], return_inverse=True)
        sums = np.bincount(session, weights=percents - percents.mean())
        error = None
        if len(sums) > 1:
            spread = (sums**2).sum() * len(sums) / (len(sums) - 1)
            error = float(np.sqrt(spread) / len(percents))
        return cls(float(percents.mean()), error, len(percents), len(sums))


class Judgement(NamedTuple):
    """Errors and shares in percent; which held-out subnets intervals hold, and a front of them."""

    row: Row
    inside: Held
    front: Rows


@dataclass(frozen=True)
class MeasuredSet:
    """Subnets of one supernet on one target, their latencies and the noise of these.

    `latencies_ms` are freed of the errors of their sessions, as all of the profile tells them, and
    `as_measured_ms` are not; each has a noise floor of its own.
    """

    target: Target
    geometry: SamGeometry
    configs: tuple[SubnetConfig, ...]
    latencies_ms: Array
    as_measured_ms: Array
    floor: NoiseFloor
    floor_as_measured: NoiseFloor

    @property
    def features(self) -> Array:
        """(n, f), columns as `SCHEMA` has them."""
        return FeatureBuilder(self.geometry).matrix(self.configs)

    def unfitted(self, source: LatencyPredictor | None = None) -> LatencyPredictor:
        """A predictor for this target."""
        return LatencyPredictor(self.geometry, self.target, self.geometry.id, source=source)

    def at(self, rows: Sequence[int] | Rows) -> list[SubnetConfig]:
        """The subnets of some rows."""
        return [self.configs[row] for row in rows]


def read_profiles(root: Path, geometry: SamGeometry) -> list[MeasuredSet]:
    """Every target's profile of one geometry under `root`, by name.

    Raises:
        ProfileError: there is none, or one is damaged.
    """
    found = []
    for path in sorted(root.glob("*/target.json")):
        target = StoredTarget.from_json(path.read_bytes()).target
        profile = ProfileStore(root, target).read(geometry.id)
        configs, latencies = profile.latencies()
        if configs:
            plain = tuple(freed_of(row, {}) for row in profile.measurements)
            _, as_measured = replace(profile, measurements=plain).latencies()
            found.append(
                MeasuredSet(
                    target=target,
                    geometry=geometry,
                    configs=tuple(configs),
                    latencies_ms=np.array(latencies),
                    as_measured_ms=np.array(as_measured),
                    floor=NoiseFloor.of(profile.measurements),
                    floor_as_measured=NoiseFloor.of(plain),
                )
            )
    if not found:
        raise ProfileError(f"There is no profile of {geometry.id} in {root}: name another folder.")
    return found


def split(
    data: MeasuredSet, n: int, *, held_out: int, draw: int, neighbours: int = NEIGHBOURS
) -> tuple[Rows, Rows]:
    """Training rows, chosen much as a profile's are, and random test rows, the same for every n.

    Both ends of the sizes are trained on, so that nothing is extrapolated.
    """
    features = data.features
    macs = features[:, SCHEMA.places(["macs"])[0]]
    inner = np.argsort(macs)[1:-1]
    test = np.random.default_rng(draw).permutation(inner)[:held_out]
    pool = np.setdiff1d(np.arange(len(macs)), test)
    rng = np.random.default_rng((draw, n))
    return spread_rows(features, pool, n, rng, neighbours=neighbours), test


def evaluate(data: MeasuredSet, n: int, *, held_out: int) -> list[Row]:
    """Errors of every model at n measured subnets, and how many latencies the intervals hold.

    Latencies are freed of their sessions' errors by the whole profile: what was held out took part
    in freeing what is fitted on, and the other way round. `AS_MEASURED` is fitted on rows that are
    not freed, and judged on those that are. `JUDGED_AS_MEASURED` is the same fit, judged on
    latencies that are not freed either, beside the floor of these.
    """
    features = data.features
    raw = raw_columns(data.geometry, data.configs)
    sizes = features[:, SCHEMA.places([column for _, column in SCHEMA.sizes])]
    tables = {name: table_for(name, raw, sizes) for name in NAMES}
    fixed: list[LatencyModel] = [
        model for model in (*candidates(SCHEMA), *baselines(SCHEMA)) if model.suits(n)
    ]
    rows: dict[str, list[Row]] = {}
    inside: list[tuple[Rows, Held]] = []
    inside_front: list[tuple[Rows, Held]] = []
    for draw in range(DEFAULT_DRAWS):
        train, test = split(data, n, held_out=held_out, draw=draw)
        latencies, measured = data.latencies_ms[train], data.latencies_ms[test]
        chosen = data.unfitted().fit(data.at(train), latencies)
        judged = _judgement(data, chosen, test)
        rows.setdefault(DEFAULT, []).append(judged.row)
        inside.append((test, judged.inside))
        inside_front.append((test[judged.front], judged.inside[judged.front]))
        if n <= FEW:
            plain = data.unfitted().fit(data.at(train), data.as_measured_ms[train])
            rows.setdefault(AS_MEASURED, []).append(_judgement(data, plain, test).row)
            alike = _judgement(data, plain, test, data.as_measured_ms)
            rows.setdefault(JUDGED_AS_MEASURED, []).append(alike.row)
            others, _ = split(data, n, held_out=held_out, draw=draw, neighbours=1)
            by_size = data.unfitted().fit(data.at(others), data.latencies_ms[others])
            rows.setdefault(BY_SIZE, []).append(_judgement(data, by_size, test).row)
        if draw >= DRAWS:
            continue
        for model in fixed:
            hyper = model.tune(features[train], latencies)
            predicted = model.fit(features[train], latencies, hyper).predict(features[test])
            rows.setdefault(model.name, []).append(errors_of(model.name, predicted, measured))
        for name in NAMES:
            table = tables[name]
            predicted = baseline_predictions(name, table[train], latencies, table[test], seed=draw)
            rows.setdefault(name, []).append(errors_of(name, predicted, measured))
        if LEARNING_START + LEARNING_GROUP <= n <= LEARNING_MOST:
            learned = _learned(data, n, test, draw=draw)
            rows.setdefault(LEARNED, []).append(_judgement(data, learned, test).row)
    errors_of_shares = {
        "covered_error": error_of_share(inside),
        "front_covered_error": error_of_share(inside_front),
    }
    return [
        {"target": data.target.name, "n": n, "model": name, **means_of(errors)}
        | _floor_of(data.floor_as_measured if name == JUDGED_AS_MEASURED else data.floor)
        | (errors_of_shares if name == DEFAULT else {})
        for name, errors in rows.items()
    ]


def _floor_of(floor: NoiseFloor) -> Row:
    return {"noise_floor": floor.percent, "noise_floor_error": floor.error}


def raw_columns(geometry: SamGeometry, configs: Sequence[SubnetConfig]) -> Array:
    """A configuration as it is written: resolution, and each layer's width and heads or zeros."""
    table = np.zeros((len(configs), 1 + 2 * geometry.depth))
    for row, config in zip(table, configs, strict=True):
        row[0] = config.resolution
        for layer in config.layers:
            row[1 + 2 * layer.index : 3 + 2 * layer.index] = layer.mlp_width, layer.heads
    return table


def _learned(data: MeasuredSet, n: int, test: Rows, *, draw: int) -> LatencyPredictor:
    """A predictor on as many subnets, most of them chosen group by group."""
    start, _ = split(data, LEARNING_START, held_out=len(test), draw=draw)
    rows, held_out = start.tolist(), set(test.tolist())
    place = {config: row for row, config in enumerate(data.configs) if row not in held_out}
    while True:
        fitted = data.unfitted().fit(data.at(rows), data.latencies_ms[rows])
        if len(rows) >= n:
            return fitted
        group = next_subnets(fitted, list(place), min(LEARNING_GROUP, n - len(rows)))
        rows += [place[config] for config in group]


def _judgement(
    data: MeasuredSet, fitted: LatencyPredictor, test: Rows, latencies_ms: Array | None = None
) -> Judgement:
    """Of the held-out subnets; the front is what a search for the largest would pick of them."""
    configs = data.at(test)
    measured = (data.latencies_ms if latencies_ms is None else latencies_ms)[test]
    predicted = fitted.predict(configs)
    low, high = fitted.interval(configs, COVERAGE)
    inside = (low <= measured) & (measured <= high)
    below = measured <= fitted.upper(configs, COVERAGE)
    best = front(predicted, data.features[test][:, SCHEMA.places(["params"])[0]])
    errors = errors_of(fitted.model_name_, predicted, measured)
    return Judgement(errors | shares_held(inside, below, best), inside, best)
