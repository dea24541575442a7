"""What a latency predictor is held against: general regressors on the raw columns.

Some get the sizes too, such as MACs, which is most of what there is to know: what is left between
them and the latency predictor is what its costs and models are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

Array = NDArray[np.float64]

FOREST, BOOSTING, MLP = "raw_forest", "raw_boosting", "raw_mlp"
SIZED = SIZED_BOOSTING, SIZED_RIDGE = "sized_boosting", "sized_ridge"
NAMES = (FOREST, BOOSTING, MLP, *SIZED)
RIDGE_ALPHAS = np.logspace(-3, 3, 13)


def regressors(*, rows: int, seed: int) -> Mapping[str, Any]:
    """Unfitted regressors of the logarithm of latency, by name.

    Boosting gets small leaves and the MLP weight decay: with scikit-learn's own values both do far
    worse on 100 rows. The MLP trains until 50 epochs bring nothing. HAT's own MLP has three hidden
    layers of 400; here they have 128, to save time.

    Args:
        rows: that they are to be fitted on; of few, leaves are smaller.
        seed: of all that is random in a fit.
    """
    boosting = HistGradientBoostingRegressor(
        learning_rate=0.05, min_samples_leaf=min(5, rows // 4), random_state=seed
    )
    mlp = MLPRegressor(
        hidden_layer_sizes=(128, 128, 128),
        alpha=0.3,
        max_iter=5000,
        n_iter_no_change=50,
        random_state=seed,
    )
    logarithms = FunctionTransformer(np.log1p)
    return {
        FOREST: _of_logarithms(RandomForestRegressor(random_state=seed)),
        BOOSTING: _of_logarithms(boosting),
        MLP: make_pipeline(StandardScaler(), _of_logarithms(mlp)),
        SIZED_BOOSTING: _of_logarithms(boosting),
        SIZED_RIDGE: make_pipeline(
            logarithms, StandardScaler(), _of_logarithms(RidgeCV(RIDGE_ALPHAS))
        ),
    }


def table_for(name: str, raw: Array, sizes: Array) -> Array:
    """The columns that a baseline sees: the raw ones, (n, c), and for some (n, s) sizes too."""
    return np.column_stack([raw, sizes]) if name in SIZED else raw


def baseline_predictions(
    name: str, table: Array, latencies_ms: Array, unseen: Array, *, seed: int
) -> Array:
    """Fit a baseline, and predict.

    Args:
        name: of `NAMES`.
        table: (n, c) columns to fit on, as `table_for` gives them.
        latencies_ms: (n,) what was measured.
        unseen: (m, c) rows to predict.
        seed: of all that is random in the fit.

    Returns:
        (m,) latencies in milliseconds.
    """
    fitted = regressors(rows=len(table), seed=seed)[name].fit(table, latencies_ms)
    predictions: Array = fitted.predict(unseen)
    return predictions


def _of_logarithms(regressor: Any) -> TransformedTargetRegressor:  # noqa: ANN401 - untyped
    logarithms = make_pipeline(FunctionTransformer(np.log, np.exp), StandardScaler())
    return TransformedTargetRegressor(regressor, transformer=logarithms)
