"""The latency models that a fit chooses from, and the baselines that it is held against.

Latency of a feed-forward network is close to a sum over its operators, so the models work on
summed costs (`features`), and all of them weigh errors relatively: a row's weight is the inverse
square of its latency. Each model separates choosing hyper-parameters (`tune`) from fitting with
given ones (`fit`): a stored latency predictor is refitted from its rows without choosing again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, StandardScaler

from hwsearch.errors import PredictorError
from hwsearch.predictor.features import COSTS, KINDS, columns

Array = NDArray[np.float64]
Hyper = Mapping[str, float]

BLOCK_COSTS = tuple(f"{kind}_{cost}" for kind in KINDS for cost in COSTS)
SUMMED_COSTS = ("patch_embed_and_neck_macs", "resolution", "padded_tokens", *BLOCK_COSTS)
SHAPE = (
    "macs",
    "resolution",
    "patch_embed_and_neck_macs",
    *(
        f"{kind}_{cost}"
        for kind in KINDS
        for cost in ("blocks", "tokens", "mlp_macs", "projection_macs", "attention_macs")
    ),
)
RIDGE_ALPHAS = np.logspace(-4, 1, 16)
PROCESS_MAX_SAMPLES = 512
TREES_MIN_SAMPLES = 48
PREDICT_ROWS = 16_384  # bounds the kernel matrix of one pass
# No subnet is believed to be ten times as fast as the fastest one measured: keeps the
# extrapolations of a linear model positive.
FLOOR_SHARE = 0.1


class Regressor(Protocol):
    """A fitted model: features (n, f) to latencies in milliseconds (n,)."""

    def predict(self, features: Array) -> Array:
        """Latencies in milliseconds, positive and finite."""
        ...


class LatencyModel(Protocol):
    """A way from features to latencies."""

    @property
    def name(self) -> str:
        """The name in tables and stored predictors."""
        ...

    def suits(self, samples: int) -> bool:
        """Whether the model is worth trying on so many rows: not too few, not too slow."""
        ...

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Choose hyper-parameters on these rows."""
        ...

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """Fit with given hyper-parameters; the same rows give the same model."""
        ...


@dataclass(frozen=True)
class BlockSum:
    """A constant plus a non-negative time per unit of each cost (non-negative least squares).

    Every operator takes time, so no weight may be negative; this also selects columns, and makes
    the model safe with few samples.
    """

    name: str = "block_sum"
    names: tuple[str, ...] = SUMMED_COSTS

    def suits(self, samples: int) -> bool:
        """On any number of rows."""
        return True

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Nothing to choose."""
        return {}

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """Least squares of the relative errors, weights not below zero."""
        pipeline = make_pipeline(
            _take(self.names, constant=True),
            MaxAbsScaler(),
            LinearRegression(positive=True, fit_intercept=False),
        )
        weights = _relative_weights(latencies_ms)
        pipeline.fit(features, latencies_ms, linearregression__sample_weight=weights)
        return _Floored(pipeline, FLOOR_SHARE * float(latencies_ms.min()))


@dataclass(frozen=True)
class CostRidge:
    """Ridge regression on the standardised costs; weights of any sign."""

    name: str = "cost_ridge"
    names: tuple[str, ...] = SUMMED_COSTS

    def suits(self, samples: int) -> bool:
        """On any number of rows."""
        return True

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """The penalty with the least leave-one-out error."""
        search = self._pipeline(RidgeCV(RIDGE_ALPHAS))
        weights = _relative_weights(latencies_ms)
        search.fit(features, latencies_ms, ridgecv__sample_weight=weights)
        return {"alpha": float(search[-1].alpha_)}

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """Least squares of the relative errors plus `alpha` times the squared weights."""
        pipeline = self._pipeline(Ridge(alpha=hyper["alpha"]))
        weights = _relative_weights(latencies_ms)
        pipeline.fit(features, latencies_ms, ridge__sample_weight=weights)
        return _Floored(pipeline, FLOOR_SHARE * float(latencies_ms.min()))

    def _pipeline(self, ridge: Any) -> Any:  # noqa: ANN401 - scikit-learn is untyped
        return make_pipeline(_take(self.names), StandardScaler(), ridge)


@dataclass(frozen=True)
class ProcessOnBlockSum:
    """A Gaussian process on what `BlockSum` leaves, in logarithms.

    Its linear part is the block sum itself rather than a dot-product kernel: the process falls
    back to that sum wherever there are no data, and its noise takes all where nothing is left.
    """

    name: str = "gaussian_process"
    base: BlockSum = BlockSum()
    names: tuple[str, ...] = SHAPE

    def suits(self, samples: int) -> bool:
        """As long as the likelihood's O(n³) stays affordable."""
        return samples <= PROCESS_MAX_SAMPLES

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Amplitude, length scale and noise of the greatest marginal likelihood."""
        kernel = (
            ConstantKernel(0.5, (1e-3, 1e2)) * RBF(5.0, (1.0, 1e2))  # in standardised features
            + WhiteKernel(0.3, (1e-4, 2.0))
        )
        process = GaussianProcessRegressor(kernel)
        _, residuals, scale = self._residuals(features, latencies_ms)
        with warnings.catch_warnings():
            # A parameter at its bound is an answer here: no structure left, or no noise.
            warnings.simplefilter("ignore", ConvergenceWarning)
            pipeline = self._pipeline(process, features).fit(features, residuals / scale)
        smooth, noise = pipeline[-1].kernel_.k1, pipeline[-1].kernel_.k2
        return {
            "amplitude": float(smooth.k1.constant_value),
            "length_scale": float(smooth.k2.length_scale),
            "noise": float(noise.noise_level),
        }

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """The block sum, and the process with this kernel on its residuals."""
        kernel = ConstantKernel(hyper["amplitude"]) * RBF(hyper["length_scale"])
        process = GaussianProcessRegressor(kernel + WhiteKernel(hyper["noise"]), optimizer=None)
        base, residuals, scale = self._residuals(features, latencies_ms)
        pipeline = self._pipeline(process, features).fit(features, residuals / scale)
        return _Corrected(base, pipeline, scale)

    def _residuals(self, features: Array, latencies_ms: Array) -> tuple[Regressor, Array, float]:
        base = self.base.fit(features, latencies_ms, {})
        residuals = np.log(latencies_ms / base.predict(features))
        return base, residuals, max(float(residuals.std()), 1e-9)

    def _pipeline(self, process: Any, features: Array) -> Any:  # noqa: ANN401 - untyped
        means = np.maximum(features[:, columns(self.names)].mean(axis=0), 1e-9)
        logarithms = FunctionTransformer(partial(_log_of_shares, means=means))
        return make_pipeline(_take(self.names), logarithms, StandardScaler(), process)


@dataclass(frozen=True)
class BoostedBlockSum:
    """Small boosted trees on what `BlockSum` leaves, in logarithms: steps, such as tile sizes."""

    name: str = "boosted_trees"
    base: BlockSum = BlockSum()

    def suits(self, samples: int) -> bool:
        """From a few dozen rows on: with fewer, trees that won cross-validation won by luck."""
        return samples >= TREES_MIN_SAMPLES

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Fixed values: with tens of samples a search over them chooses noise."""
        return {"trees": 60, "depth": 2, "learning_rate": 0.08, "subsample": 0.7}

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """The block sum, and the trees on its residuals."""
        trees = GradientBoostingRegressor(
            n_estimators=int(hyper["trees"]),
            max_depth=int(hyper["depth"]),
            learning_rate=hyper["learning_rate"],
            subsample=hyper["subsample"],
            random_state=0,
        )
        base = self.base.fit(features, latencies_ms, {})
        trees.fit(features, np.log(latencies_ms / base.predict(features)))
        return _Corrected(base, trees, 1.0)


# The simplest first: of models that cross-validation can't tell apart, the first is taken.
CANDIDATES: tuple[LatencyModel, ...] = (
    BlockSum(),
    CostRidge(),
    ProcessOnBlockSum(),
    BoostedBlockSum(),
)
CONSTANT = BlockSum(name="constant", names=())
# The best constant, and the best straight lines over one figure of the subnet.
BASELINES: tuple[LatencyModel, ...] = (
    CONSTANT,
    BlockSum(name="params_only", names=("params",)),
    BlockSum(name="macs_only", names=("macs",)),
)


def candidate(name: str) -> LatencyModel:
    """The candidate of this name.

    Raises:
        PredictorError: there is none.
    """
    for model in CANDIDATES:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in CANDIDATES)
    raise PredictorError(f"There is no latency model '{name}': this version knows {known}.")


@dataclass(frozen=True)
class _Floored:
    """A regressor whose predictions stay above a floor."""

    pipeline: Any
    floor_ms: float

    def predict(self, features: Array) -> Array:
        predictions: Array = np.maximum(self.pipeline.predict(features), self.floor_ms)
        return predictions


@dataclass(frozen=True)
class _Corrected:
    """A base regressor times the exponential of a second one's prediction."""

    base: Regressor
    correction: Any
    scale: float

    def predict(self, features: Array) -> Array:
        parts = [
            self.correction.predict(features[start : start + PREDICT_ROWS])
            for start in range(0, len(features), PREDICT_ROWS)
        ]
        logarithm = np.concatenate(parts) if parts else np.empty(0)
        return self.base.predict(features) * np.exp(self.scale * logarithm)


def _relative_weights(latencies_ms: Array) -> Array:
    """Weights that turn squared errors into squared relative errors, with mean one."""
    inverse_squares = latencies_ms**-2.0
    weights: Array = inverse_squares / inverse_squares.mean()
    return weights


def _take(names: tuple[str, ...], *, constant: bool = False) -> FunctionTransformer:
    return FunctionTransformer(partial(_columns_of, places=columns(names), constant=constant))


def _columns_of(features: Array, *, places: list[int], constant: bool) -> Array:
    taken = features[:, places]
    return np.hstack([np.ones((len(features), 1)), taken]) if constant else taken


def _log_of_shares(features: Array, *, means: Array) -> Array:
    shares: Array = np.log1p(features / means)
    return shares
