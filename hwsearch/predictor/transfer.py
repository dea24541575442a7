"""Few-shot transfer: what a target's predictor knows, carried to a target with few measurements.

Two targets of one supernet rank its subnets much alike: the logarithm of one latency is close to
an affine function of the other's. So the source's prediction becomes one more column of the
features, and the models here correct it: by two numbers, then by what those leave. A fit sets
them beside the models that know no source, which win once there are rows enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.pipeline import make_pipeline

from hwsearch.predictor.linear import Array, Hyper, Regressor, fit_robustly
from hwsearch.predictor.models import LatencyModel
from hwsearch.predictor.residual import Corrected, ProcessOn, log_shares, residuals_of
from hwsearch.predictor.schema import SOURCE, FeatureSchema

# Pulls the exponent of the source's latency towards one, as much as a tenth of a row would.
EXPONENT_PENALTY = 0.1
RESIDUAL_ALPHAS = np.logspace(-1, 3, 13)
RESIDUAL_MIN_SAMPLES = 8
PROCESS_MIN_SAMPLES = 16


@dataclass(frozen=True)
class AffineTransfer:
    """Latency is a factor times a power of the source's, the power near one."""

    name: str
    source: int

    def suits(self, samples: int) -> bool:
        """On any number of rows."""
        return True

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Nothing to choose."""
        return {}

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """Huber's loss of the logarithms."""
        source = np.log(features[:, self.source])
        centre, spread = float(source.mean()), max(float(source.std()), 1e-9)
        ridge = Ridge(alpha=EXPONENT_PENALTY)
        inputs = ((source - centre) / spread)[:, None]
        fit_robustly(ridge, inputs, np.log(latencies_ms) - source, np.ones(len(source)))
        slope = float(ridge.coef_[0]) / spread
        return _PowerLaw(self.source, float(ridge.intercept_) - slope * centre, 1 + slope)


@dataclass(frozen=True)
class RidgeTransfer:
    """The affine map, and a ridge over the logarithms of the costs on what it leaves."""

    name: str
    base: AffineTransfer
    places: tuple[int, ...]

    def suits(self, samples: int) -> bool:
        """From the number of rows on that a latency predictor needs."""
        return samples >= RESIDUAL_MIN_SAMPLES

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """The penalty with the least leave-one-out error."""
        _, residuals, scale = residuals_of(self.base, features, latencies_ms)
        search = make_pipeline(*log_shares(self.places, features), RidgeCV(RESIDUAL_ALPHAS))
        return {"alpha": float(search.fit(features, residuals / scale)[-1].alpha_)}

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """The affine map, and the ridge with this penalty on its residuals."""
        base, residuals, scale = residuals_of(self.base, features, latencies_ms)
        ridge = make_pipeline(*log_shares(self.places, features), Ridge(alpha=hyper["alpha"]))
        return Corrected(base, ridge.fit(features, residuals / scale), scale)


def transfer_candidates(schema: FeatureSchema) -> tuple[LatencyModel, ...]:
    """The models that know a source, the simplest first.

    Args:
        schema: of the features without the source's column, which follows as the last one.
    """
    wide = schema.with_source()
    (source,), shape = wide.places([SOURCE]), wide.places(schema.shape)
    affine = AffineTransfer("transfer_affine", source)
    return (
        affine,
        RidgeTransfer("transfer_ridge", affine, shape),
        ProcessOn("transfer_process", affine, shape, PROCESS_MIN_SAMPLES),
    )


@dataclass(frozen=True)
class _PowerLaw:
    source: int
    log_factor: float
    exponent: float

    def predict(self, features: Array) -> Array:
        latencies: Array = np.exp(
            self.log_factor + self.exponent * np.log(features[:, self.source])
        )
        return latencies
