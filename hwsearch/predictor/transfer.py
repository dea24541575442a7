"""Few-shot transfer: what a target's predictor knows, carried to a target with few measurements.

Two targets of one supernet rank its subnets much alike: the logarithm of one latency is close to
an affine function of the other's. So the source's prediction becomes one more column of the
features. With five to seven rows the affine map is all that can be learnt. From eight on the
source's latency is one more cost that is summed over: what the operators of a target take in
other proportions than the source's do is a few weights, which the map alone leaves as an error.
From sixteen on a source adds nothing to such sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.pipeline import make_pipeline

from hwsearch.predictor.linear import Array, BlockSum, Hyper, Regressor, fit_robustly
from hwsearch.predictor.models import LatencyModel, MeanOf, candidates
from hwsearch.predictor.residual import Corrected, ProcessOn, log_shares, residuals_of
from hwsearch.predictor.schema import SOURCE, FeatureSchema

# Pulls the exponent of the source's latency towards one, as much as a tenth of a row would.
EXPONENT_PENALTY = 0.1
RESIDUAL_ALPHAS = np.logspace(-1, 3, 13)
SUM_MIN_SAMPLES = 8
RESIDUAL_MIN_SAMPLES = 8
PROCESS_MIN_SAMPLES = 16
SOURCE_MEAN = "transfer_mean"
# With 8, 10 and 20 rows the error was 2.82, 2.07 and 1.25 %, of the mean of a sum and a ridge that
# know no source 3.15, 2.38 and 1.22 %, of the affine map with a ridge on what it leaves 4.14, 3.54
# and 2.45 % (mean of the twelve pairs of the reference targets, five draws).
SOURCE_MEAN_BELOW = 16


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


def affine_transfer(schema: FeatureSchema) -> AffineTransfer:
    """The model for fewer rows than anything else can be fitted on.

    Args:
        schema: of the features without the source's column, which follows as the last one.
    """
    (source,) = schema.with_source().places([SOURCE])
    return AffineTransfer("transfer_affine", source)


def transfer_candidates(schema: FeatureSchema) -> tuple[LatencyModel, ...]:
    """What a fit with a source chooses from, the preferred first.

    The affine map and what corrects it come last: they are for targets whose latency is far from a
    sum over costs, in the same way as the source's.

    Args:
        schema: as for `affine_transfer`.
    """
    affine, known = affine_transfer(schema), candidates(schema)
    operators = schema.places(schema.operators or schema.costs)
    sum_with_source = BlockSum("source_sum", (affine.source, *operators), SUM_MIN_SAMPLES)
    shape = schema.places(schema.shape)
    return (
        MeanOf(SOURCE_MEAN, (sum_with_source, known[0]), below=SOURCE_MEAN_BELOW),
        *known,
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
