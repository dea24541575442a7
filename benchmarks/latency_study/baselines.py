"""What a latency predictor is held against: general regressors on the raw columns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

Array = NDArray[np.float64]

FOREST, BOOSTING, MLP = "raw_forest", "raw_boosting", "raw_mlp"
NAMES = (FOREST, BOOSTING, MLP)


def regressors(*, seed: int) -> Mapping[str, Any]:
    """Unfitted regressors of the logarithm of latency, by name.

    Boosting gets small leaves and the MLP weight decay: with scikit-learn's own values both do far
    worse on 100 rows. HAT's own MLP has three hidden layers of 400; here they have 128, to
    save time.
    """
    boosting = HistGradientBoostingRegressor(
        learning_rate=0.05, min_samples_leaf=5, random_state=seed
    )
    mlp = MLPRegressor(
        hidden_layer_sizes=(128, 128, 128), alpha=0.3, max_iter=200, random_state=seed
    )
    return {
        FOREST: _of_logarithms(RandomForestRegressor(random_state=seed)),
        BOOSTING: _of_logarithms(boosting),
        MLP: make_pipeline(StandardScaler(), _of_logarithms(mlp)),
    }


def baseline_predictions(
    name: str, table: Array, latencies_ms: Array, unseen: Array, *, seed: int
) -> Array:
    """Fit a baseline, and predict.

    Args:
        name: of `NAMES`.
        table: (n, c) raw columns to fit on.
        latencies_ms: (n,) what was measured.
        unseen: (m, c) rows to predict.
        seed: of all that is random in the fit.

    Returns:
        (m,) latencies in milliseconds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = regressors(seed=seed)[name].fit(table, latencies_ms)
    predictions: Array = fitted.predict(unseen)
    return predictions


def _of_logarithms(regressor: Any) -> TransformedTargetRegressor:  # noqa: ANN401 - untyped
    logarithms = make_pipeline(FunctionTransformer(np.log, np.exp), StandardScaler())
    return TransformedTargetRegressor(regressor, transformer=logarithms)
