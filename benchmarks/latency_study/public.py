"""Every model on every split of a public latency set.

Intervals are those of `LatencyPredictor` but for one thing: they follow no resolution, since rows
of these sets have none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwsearch.predictor.calibration import one_sided, two_sided
from hwsearch.predictor.crossvalidation import choose_model, fold_numbers
from hwsearch.predictor.information import relative_costs, spreads, studentised
from hwsearch.predictor.models import LatencyModel, baselines, candidates, model_named
from latency_study.baselines import NAMES, baseline_predictions, table_for
from latency_study.figures import (
    COVERAGE,
    DEFAULT,
    Row,
    errors_of,
    front,
    means_of,
    shares_held,
)
from latency_study.hat import LatencySet, splits

Array = NDArray[np.float64]


def evaluate(data: LatencySet, n: int, *, seed: int) -> tuple[list[Row], Row]:
    """Errors of each model at n training rows, and how many latencies the intervals hold.

    Args:
        data: the set.
        n: how many rows are fitted on.
        seed: of the splits, and of all that is random in a fit.

    Returns:
        A row for each model, means over the splits in percent; a row on "default"'s intervals.
    """
    schema = data.builder.schema
    features = data.builder.matrix(data.table)
    sizes = features[:, schema.places([column for _, column in schema.sizes])[0]]
    fixed = [model for model in (*candidates(schema), *baselines(schema)) if model.suits(n)]
    errors: dict[str, list[Row]] = {}
    held: list[Row] = []
    chosen: list[str] = []
    for train, test in splits(len(features), n, seed=seed):
        latencies, measured = data.latencies_ms[train], data.latencies_ms[test]
        found = {
            model.name: _predictions(model, features[train], latencies, features[test])
            for model in fixed
        }
        for name in NAMES:
            table = table_for(name, data.table, sizes[:, None])
            found[name] = baseline_predictions(
                name, table[train], latencies, table[test], seed=seed
            )
        choice = choose_model(
            features[train], latencies, models=candidates(schema), baselines=(), seed=seed
        )
        model = model_named(choice.model_name, fixed)
        fitted = model.fit(features[train], latencies, choice.hyper)
        found[DEFAULT] = fitted.predict(features[test])
        chosen.append(choice.model_name)
        known, new = (
            relative_costs(features[rows], features[train], schema) for rows in (train, test)
        )
        folds = fold_numbers(n, seed=seed)
        calibrated = studentised(np.array(choice.log_residuals), known, folds)
        log_errors = np.log(measured / found[DEFAULT]) / spreads(known, new)
        inside = np.abs(log_errors) <= two_sided(calibrated, COVERAGE).size
        below = log_errors <= one_sided(calibrated, COVERAGE).size
        held.append(shares_held(inside, below, front(found[DEFAULT], sizes[test])))
        for name, predicted in found.items():
            errors.setdefault(name, []).append(errors_of(name, predicted, measured))
    names = [DEFAULT, *(name for name in errors if name != DEFAULT)]
    rows = [{"set": data.name, "model": name, "n": n, **means_of(errors[name])} for name in names]
    return rows, {"set": data.name, "n": n, "chosen": chosen, **means_of(held)}


def _predictions(model: LatencyModel, features: Array, latencies: Array, unseen: Array) -> Array:
    return model.fit(features, latencies, model.tune(features, latencies)).predict(unseen)
