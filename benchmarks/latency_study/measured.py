"""This project's own profiles: errors of the latency models by the number of measured subnets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import ProfileError
from hwsearch.predictor.acquisition import next_subnets
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.models import LatencyModel, baselines, candidates
from hwsearch.predictor.sampling import NEIGHBOURS
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiles import ProfileStore, StoredTarget
from hwsearch.records import SamGeometry, SubnetConfig, Target
from hwsearch.session_errors import freed_of
from latency_study.baselines import NAMES, baseline_predictions
from latency_study.figures import Row, errors_of, means_of
from latency_study.public import COVERAGE, DEFAULT, front
from latency_study.sample import spread_rows

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

DRAWS = 5
# What a fit chooses is judged on more draws: an interval's coverage depends on the 32 subnets that
# it was calibrated on, and five draws of them leave it uncertain by several percent.
DEFAULT_DRAWS = 24
LEARNED = "default, subnets chosen as it learns"
BY_SIZE = "default, subnets chosen by size alone"
AS_MEASURED = "default, on latencies as measured"
FEW = 32  # for which these two are told
LEARNING_START, LEARNING_GROUP, LEARNING_MOST = 16, 8, 64


@dataclass(frozen=True)
class MeasuredSet:
    """Subnets of one supernet on one target, their latencies and the noise of these.

    `latencies_ms` are freed of the errors of their sessions, as all of the profile tells them, and
    `as_measured_ms` are not.
    """

    target: Target
    geometry: SamGeometry
    configs: tuple[SubnetConfig, ...]
    latencies_ms: Array
    as_measured_ms: Array
    noise_floor_percent: float | None

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
                    noise_floor_percent=noise_floor(profile.measurements),
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

    Training rows are freed of their sessions' errors by the whole profile, some held-out subnets
    among it. `AS_MEASURED` is fitted on rows that are not, and judged alike: nothing that it saw
    hangs on what was held out.
    """
    features = data.features
    table = raw_columns(data.geometry, data.configs)
    fixed: list[LatencyModel] = [
        model for model in (*candidates(SCHEMA), *baselines(SCHEMA)) if model.suits(n)
    ]
    rows: dict[str, list[Row]] = {}
    for draw in range(DEFAULT_DRAWS):
        train, test = split(data, n, held_out=held_out, draw=draw)
        latencies, measured = data.latencies_ms[train], data.latencies_ms[test]
        chosen = data.unfitted().fit(data.at(train), latencies)
        rows.setdefault(DEFAULT, []).append(_judged(data, chosen, test))
        if n <= FEW:
            plain = data.unfitted().fit(data.at(train), data.as_measured_ms[train])
            rows.setdefault(AS_MEASURED, []).append(_judged(data, plain, test))
            others, _ = split(data, n, held_out=held_out, draw=draw, neighbours=1)
            by_size = data.unfitted().fit(data.at(others), data.latencies_ms[others])
            rows.setdefault(BY_SIZE, []).append(_judged(data, by_size, test))
        if draw >= DRAWS:
            continue
        for model in fixed:
            hyper = model.tune(features[train], latencies)
            predicted = model.fit(features[train], latencies, hyper).predict(features[test])
            rows.setdefault(model.name, []).append(errors_of(model.name, predicted, measured))
        for name in NAMES:
            predicted = baseline_predictions(name, table[train], latencies, table[test], seed=draw)
            rows.setdefault(name, []).append(errors_of(name, predicted, measured))
        if LEARNING_START + LEARNING_GROUP <= n <= LEARNING_MOST:
            learned = _learned(data, n, test, draw=draw)
            rows.setdefault(LEARNED, []).append(_judged(data, learned, test))
    return [
        {"target": data.target.name, "n": n, "model": name, **means_of(errors)}
        | {"noise_floor": data.noise_floor_percent}
        for name, errors in rows.items()
    ]


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


def _judged(data: MeasuredSet, fitted: LatencyPredictor, test: Rows) -> Row:
    """Errors on the held-out subnets, and the shares that intervals hold of them and of a front."""
    configs, measured = data.at(test), data.latencies_ms[test]
    predicted = fitted.predict(configs)
    low, high = fitted.interval(configs, COVERAGE)
    inside = (low <= measured) & (measured <= high)
    sizes = data.features[test][:, SCHEMA.places(["params"])[0]]
    return errors_of(fitted.model_name_, predicted, measured) | {
        "covered": 100 * float(inside.mean()),
        "front_covered": 100 * float(inside[front(predicted, sizes)].mean()),
        "below_upper": 100 * float((measured <= fitted.upper(configs, COVERAGE)).mean()),
    }
