"""Which latency model to take, and how well it predicts subnets that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from scipy.stats import kendalltau, spearmanr
from sklearn.model_selection import RepeatedKFold

from hwsearch.predictor.models import CONSTANT, LatencyModel
from hwsearch.records import Record, Share

Array = NDArray[np.float64]

FOLDS = 8
REPEATS = 3
# With more samples than this the split into folds no longer matters, and time does.
SAMPLES_FOR_ONE_REPEAT = 256
# A smaller share of the error is no reason for a more complicated model, however certain.
WORTHWHILE_SHARE = 0.05


class ModelScore(Record):
    """How well a model predicted the subnets of the folds that it was not fitted on.

    `within_5_percent` and `within_10_percent` are shares, from 0 to 1, of the subnets whose
    prediction is that close to their latency. A rank correlation is None where there is no order.
    """

    name: str
    mape_percent: float
    within_5_percent: Share
    within_10_percent: Share
    kendall_tau: float | None
    spearman: float | None


class CrossValidation(ModelScore):
    """Repeated k-fold cross-validation: the choice's score, and every model's.

    The record's own figures are those of choosing and fitting together: each fold is predicted by
    the model that the other folds' errors choose. (Those errors are of models that had the fold
    among their rows: to nest the choice in full would take as many fits again for each fold.)
    `models` are the candidates that suit so many rows, each
    by itself, and `baselines` what they have to beat. `name` is the model that all rows choose.
    """

    n: PositiveInt
    folds: PositiveInt
    repeats: PositiveInt
    models: tuple[ModelScore, ...]
    baselines: tuple[ModelScore, ...]


class ModelChoice(Record):
    """What a fit decides: the model, its hyper-parameters, and the choice's out-of-fold errors.

    `log_residuals` holds, a repeat, each row's logarithm of measured over predicted latency, where
    the row had no part in the fit, and its error none in the choice of the model.
    """

    model_name: str
    hyper: dict[str, float]
    log_residuals: tuple[tuple[float, ...], ...]
    cv: CrossValidation


def choose_model(
    features: Array,
    latencies_ms: Array,
    *,
    models: Sequence[LatencyModel],
    baselines: Sequence[LatencyModel],
    seed: int,
) -> ModelChoice:
    """Cross-validate all candidates and take the best, or a preferred one that is as good.

    A preferred model counts as good if its absolute relative error, averaged over the rows, exceeds
    the best model's by no more than one standard error of their paired difference (the one-
    standard-error rule of Breiman et al. 1984, with pairs since all models see the same rows), or
    by no more than a twentieth.

    Args:
        features: (n, f), columns as the models' schema has them.
        latencies_ms: (n,) measured latencies in milliseconds.
        models: the candidates, the preferred ones first; at least one has to suit n rows.
        baselines: what they have to beat.
        seed: decides the folds.
    """
    n = len(latencies_ms)
    usable = [model for model in models if model.suits(n)]
    folds = fold_numbers(n, seed=seed)
    predictions = {
        model.name: out_of_fold(model, features, latencies_ms, folds=folds)
        for model in (*usable, *baselines)
    }
    of_usable = [predictions[model.name] for model in usable]
    best = usable[_preferred_of_the_best(of_usable, latencies_ms)]
    scores = {name: score(name, found, latencies_ms) for name, found in predictions.items()}
    # One constant a fold is no order, though a rank correlation would see one.
    unordered = {"kendall_tau": None, "spearman": None}
    if CONSTANT in scores:
        scores[CONSTANT] = scores[CONSTANT].model_copy(update=unordered)
    chosen = _chosen_without_the_fold(of_usable, latencies_ms, folds)
    residuals = np.log(latencies_ms / chosen)
    return ModelChoice(
        model_name=best.name,
        hyper=best.tune(features, latencies_ms),
        log_residuals=tuple(tuple(row) for row in residuals.tolist()),
        cv=CrossValidation(
            **score(best.name, chosen, latencies_ms).model_dump(),
            n=n,
            folds=int(folds.max()) + 1,
            repeats=len(folds),
            models=tuple(scores[model.name] for model in usable),
            baselines=tuple(scores[model.name] for model in baselines),
        ),
    )


def fold_numbers(n: int, *, seed: int, repeats: int | None = None) -> NDArray[np.int64]:
    """Each row's fold in each repeat, (repeats, n); None: as many repeats as a fit makes."""
    repeats, count = repeats or _repeats(n), min(FOLDS, n)
    numbers = np.empty((repeats, n), dtype=np.int64)
    splits = RepeatedKFold(n_splits=count, n_repeats=repeats, random_state=seed)
    for place, (_, test) in enumerate(splits.split(numbers[0])):
        numbers[place // count, test] = place % count
    return numbers


def out_of_fold(
    model: LatencyModel, features: Array, latencies_ms: Array, *, folds: NDArray[np.int64]
) -> Array:
    """Predictions in milliseconds of each row by models that did not see it: (repeats, n).

    Hyper-parameters are tuned within each fold's training rows, so that nothing leaks.
    """
    found = np.empty(folds.shape)
    for predictions, numbers in zip(found, folds, strict=True):
        for fold in np.unique(numbers):
            test = numbers == fold
            train = ~test
            hyper = model.tune(features[train], latencies_ms[train])
            fitted = model.fit(features[train], latencies_ms[train], hyper)
            predictions[test] = fitted.predict(features[test])
    return found


def _chosen_without_the_fold(
    predictions: Sequence[Array], latencies_ms: Array, folds: NDArray[np.int64]
) -> Array:
    """Each fold as predicted by the model that the other folds' errors would choose.

    The best of several models is partly the luckiest: its own errors flatter the choice. These
    are errors of choosing and fitting together; no model has to be fitted once more for them.
    """
    found = np.empty(folds.shape)
    for repeat, numbers in enumerate(folds):
        for fold in np.unique(numbers):
            test = numbers == fold
            others = [one[:, ~test] for one in predictions]
            best = _preferred_of_the_best(others, latencies_ms[~test])
            found[repeat, test] = predictions[best][repeat, test]
    return found


def _repeats(n: int) -> int:
    return 1 if n > SAMPLES_FOR_ONE_REPEAT else REPEATS


def _preferred_of_the_best(predictions: Sequence[Array], latencies_ms: Array) -> int:
    """Place of the first model that is not clearly worse than the best one."""
    errors = [np.abs(found / latencies_ms - 1).mean(axis=0) for found in predictions]
    best = min(errors, key=lambda error: float(error.mean()))
    negligible = WORTHWHILE_SHARE * best.mean()
    excesses = [error - best for error in errors]
    return next(  # the best one at the latest: its own excess is zero
        place
        for place, excess in enumerate(excesses)
        if excess.mean() <= max(excess.std(ddof=1) / np.sqrt(len(excess)), negligible)
    )


def score(name: str, predictions: Array, latencies_ms: Array) -> ModelScore:
    """How close predictions come.

    Args:
        name: whose they are.
        predictions: (repeats, n) in milliseconds.
        latencies_ms: (n,) what was measured.
    """
    error = np.abs(predictions / latencies_ms - 1)
    return ModelScore(
        name=name,
        mape_percent=float(100 * error.mean()),
        within_5_percent=float((error <= 0.05).mean()),
        within_10_percent=float((error <= 0.10).mean()),
        kendall_tau=_mean_or_none([kendalltau(row, latencies_ms).statistic for row in predictions]),
        spearman=_mean_or_none([_spearman(row, latencies_ms) for row in predictions]),
    )


def _spearman(predictions: Array, latencies_ms: Array) -> float:
    if np.ptp(predictions) == 0 or np.ptp(latencies_ms) == 0:
        return float("nan")  # scipy gives the same, with a warning
    return float(spearmanr(predictions, latencies_ms).statistic)


def _mean_or_none(values: Sequence[float]) -> float | None:
    mean = float(np.mean(values))
    return mean if np.isfinite(mean) else None
