"""What a first model leaves, in logarithms, learnt by a second one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from hwsearch.predictor.linear import Array, Hyper, Regressor, taken

PROCESS_MAX_SAMPLES = 512
TREES_MIN_SAMPLES = 64
PREDICT_ROWS = 16_384  # bounds the kernel matrix of one pass
# In robust standard deviations: what lies further out is a disturbance, not a law.
CLIPPED_AT = 3.0
DEVIATIONS_PER_MEDIAN = 1.4826  # of absolute normal errors


class Base(Protocol):
    """A model without hyper-parameters that a residual is taken from."""

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """Fit on these rows."""
        ...


@dataclass(frozen=True)
class ProcessOn:
    """A Gaussian process on what `base` leaves.

    Its linear part is the base itself rather than a dot-product kernel: the process falls back to
    the base wherever there are no data, and its noise takes all where nothing is left.
    """

    name: str
    base: Base
    places: tuple[int, ...]
    min_samples: int = 1

    def suits(self, samples: int) -> bool:
        """As long as the likelihood's O(n³) stays affordable."""
        return self.min_samples <= samples <= PROCESS_MAX_SAMPLES

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Amplitude, length scale and noise of the greatest marginal likelihood."""
        kernel = (
            ConstantKernel(0.5, (1e-3, 1e2)) * RBF(5.0, (1.0, 1e2))  # in standardised features
            + WhiteKernel(0.3, (1e-4, 2.0))
        )
        process = GaussianProcessRegressor(kernel)
        _, residuals, scale = residuals_of(self.base, features, latencies_ms)
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
        """The base, and the process with this kernel on its residuals."""
        kernel = ConstantKernel(hyper["amplitude"]) * RBF(hyper["length_scale"])
        process = GaussianProcessRegressor(kernel + WhiteKernel(hyper["noise"]), optimizer=None)
        base, residuals, scale = residuals_of(self.base, features, latencies_ms)
        pipeline = self._pipeline(process, features).fit(features, residuals / scale)
        return Corrected(base, pipeline, scale)

    def _pipeline(self, process: GaussianProcessRegressor, features: Array) -> Pipeline:
        return make_pipeline(*log_shares(self.places, features), process)


@dataclass(frozen=True)
class BoostedOn:
    """Small boosted trees on what `base` leaves: steps, such as tile sizes."""

    name: str
    base: Base
    places: tuple[int, ...]

    def suits(self, samples: int) -> bool:
        """From a few dozen rows on: with fewer, trees that won cross-validation won by luck."""
        return samples >= TREES_MIN_SAMPLES

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Fixed values: with tens of samples a search over them chooses noise."""
        return {"trees": 60, "depth": 2, "learning_rate": 0.08, "subsample": 0.7}

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """The base, and the trees on its residuals."""
        trees = GradientBoostingRegressor(
            n_estimators=int(hyper["trees"]),
            max_depth=int(hyper["depth"]),
            learning_rate=hyper["learning_rate"],
            subsample=hyper["subsample"],
            random_state=0,
        )
        base, residuals, scale = residuals_of(self.base, features, latencies_ms)
        pipeline = make_pipeline(taken(self.places), trees).fit(features, residuals / scale)
        return Corrected(base, pipeline, scale)


@dataclass(frozen=True)
class Corrected:
    """A base regressor times the exponential of a second one's prediction."""

    base: Regressor
    correction: Any
    scale: float

    def predict(self, features: Array) -> Array:
        """Latencies in milliseconds, (n,)."""
        parts = [
            self.correction.predict(features[start : start + PREDICT_ROWS])
            for start in range(0, len(features), PREDICT_ROWS)
        ]
        logarithm = np.concatenate(parts) if parts else np.empty(0)
        return self.base.predict(features) * np.exp(self.scale * logarithm)


def residuals_of(
    model: Base, features: Array, latencies_ms: Array
) -> tuple[Regressor, Array, float]:
    """The fitted base; the logarithms that it leaves, (n,), outliers drawn in; their spread."""
    base = model.fit(features, latencies_ms, {})
    residuals = np.log(latencies_ms / base.predict(features))
    deviation = DEVIATIONS_PER_MEDIAN * float(np.median(np.abs(residuals)))
    clipped = np.clip(residuals, -CLIPPED_AT * deviation, CLIPPED_AT * deviation)
    return base, clipped, max(float(clipped.std()), 1e-9)


def log_shares(
    places: tuple[int, ...], features: Array
) -> tuple[FunctionTransformer, FunctionTransformer, StandardScaler]:
    """Steps that give ln(1 + column / its mean here), standardised."""
    means = np.maximum(features[:, places].mean(axis=0), 1e-9)
    logarithms = FunctionTransformer(partial(_log_of_shares, means=means))
    return taken(places), logarithms, StandardScaler()


def _log_of_shares(features: Array, *, means: Array) -> Array:
    shares: Array = np.log1p(features / means)
    return shares
