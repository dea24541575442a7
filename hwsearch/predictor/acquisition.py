"""Which subnet to measure next: where the least is known, or where it matters most."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, WhiteKernel
from sklearn.pipeline import make_pipeline

from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.linear import Array
from hwsearch.predictor.residual import log_shares
from hwsearch.records import SubnetConfig

# Logarithmic distance from a target latency at which a subnet matters half as much as on it.
NEIGHBOURHOOD = 0.15
FAR_SHARE = 0.2  # how much a subnet far from every target still matters


def next_subnets(
    predictor: LatencyPredictor,
    candidates: Sequence[SubnetConfig],
    count: int,
    *,
    near_ms: Sequence[float] = (),
) -> list[SubnetConfig]:
    """Choose subnets to measure, one after the other, each where a Gaussian process is least sure.

    The process is fitted on the logarithms of the measured latencies. Its variance at a point
    depends on which points are measured, not on what came out there: so after each choice the
    chosen subnet counts as measured, and the next one lies elsewhere (sequential design by active
    learning: MacKay, Neural Computation 4(4), 1992).

    Args:
        predictor: fitted on what is measured so far.
        candidates: subnets to choose from; those that it was fitted on are left out.
        count: how many; fewer are returned if there are no more candidates.
        near_ms: target latencies; the standard deviation counts in full near them, and by
            `FAR_SHARE` far from them all. None: it counts alike everywhere.

    Raises:
        PredictorError: the predictor is not fitted.
        UsageError: a candidate can't be a subnet of the predictor's geometry.
    """
    weight_of = _weights(predictor.predict(candidates), near_ms)
    measured = set(predictor.configs_)
    weights = {
        config: weight
        for config, weight in zip(candidates, weight_of.tolist(), strict=True)
        if config not in measured
    }
    builder = FeatureBuilder(predictor.geometry)
    known = builder.matrix(predictor.configs_)
    scale = make_pipeline(*log_shares(SCHEMA.places(SCHEMA.shape), known)).fit(known)
    rows = scale.transform(known)
    kernel = _kernel(rows, np.log(predictor.latencies_ms_))
    left = list(weights)
    points = scale.transform(builder.matrix(left)) if left else np.empty((0, rows.shape[1]))
    chosen: list[SubnetConfig] = []
    while left and len(chosen) < count:
        process = GaussianProcessRegressor(kernel, optimizer=None).fit(rows, np.zeros(len(rows)))
        _, deviations = process.predict(points, return_std=True)
        place = int(np.argmax(deviations * np.array([weights[config] for config in left])))
        chosen.append(left.pop(place))
        rows = np.vstack([rows, points[place]])
        points = np.delete(points, place, axis=0)
    return chosen


def _kernel(rows: Array, log_latencies: Array) -> Kernel:
    """The kernel of the greatest marginal likelihood, for standardised latencies."""
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(5.0, (1.0, 1e2)) + WhiteKernel(
        1e-2, (1e-5, 1.0)
    )
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound is an answer, too
        return process.fit(rows, log_latencies).kernel_


def _weights(predicted_ms: Array, near_ms: Sequence[float]) -> Array:
    """How much each subnet matters, (n,)."""
    if not near_ms:
        return np.ones(len(predicted_ms))
    distances = np.abs(np.log(predicted_ms[:, None] / np.array(near_ms))).min(axis=1)
    weights: Array = FAR_SHARE + (1 - FAR_SHARE) * np.exp(-((distances / NEIGHBOURHOOD) ** 2))
    return weights
