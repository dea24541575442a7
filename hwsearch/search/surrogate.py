"""A model of accuracy, fitted to the deployments judged so far, that knows what it does not know.

A Gaussian process whose covariance is a linear one (what each choice is worth on its own) plus a
squared exponential (what choices are worth together) plus a term for what no feature tells: two
subnets that look alike are not equally accurate. The shares of the three, and the length over
which the second one reaches, are those with the greatest leave-one-out predictive density
(Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 5.10 to 5.13). With
some tens of trials that is most often close to a Bayesian ridge regression.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace

Array = NDArray[np.float64]

LENGTHS = (0.5, 1.0, 2.0)  # of the median distance between deployments judged
CURVED_SHARES = (0.3, 0.9)  # of the squared exponential in the covariance, the rest is linear
UNEXPLAINED = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # variance that no feature tells
LEVEL = 10.0  # variance of the common level, so that it is hardly drawn towards the mean
LEAST_SCALE = 1e-6  # accuracies that are all alike still leave a density


def features(
    space: DeploymentSpace, deployments: Sequence[Deployment], costs: Sequence[float] | Array
) -> Array:
    """What the surrogate sees of each deployment, in comparable units.

    A step for each further precision and resolution; kept, MLP width and heads of each layer, as
    shares; depth; the importance that is left, as the order of removal has it; the logarithm of
    the cost, for a subnet gains ever less from being larger.

    Args:
        space: where the deployments come from.
        deployments: n deployments.
        costs: their costs, (n,).

    Returns:
        (n, f).
    """
    subnets = space.subnets
    layers = len(subnets.layers)
    ranks = {index: rank for rank, index in enumerate(subnets.removal_order, start=1)}
    worth = np.array([ranks.get(index, layers) for index in range(layers)], dtype=np.float64)
    widest = np.array([(c.mlp_widths[-1], c.heads[-1]) for c in subnets.layers], dtype=np.float64)
    table = np.zeros((len(deployments), layers, 3))
    whole = []
    for row, deployment in zip(table, deployments, strict=True):
        config = deployment.subnet
        for layer in config.layers:
            row[layer.index] = 1.0, layer.mlp_width, layer.heads
        whole.append(
            [float(deployment.precision == other) for other in space.precisions[1:]]
            + [float(config.resolution >= step) for step in subnets.resolutions[1:]]
        )
    table[:, :, 1:] /= widest
    left = table * (worth / worth.sum())[:, None]  # weighted by importance
    depth = table[:, :, 0].mean(axis=1, keepdims=True)
    size = np.log(np.maximum(np.asarray(costs, dtype=np.float64), 1e-9))[:, None]
    return np.hstack(
        [
            np.array(whole).reshape(len(deployments), -1),
            table.reshape(len(deployments), -1) / math.sqrt(layers),
            left.sum(axis=1),
            depth,
            depth**2,
            size / 3,
            size**2 / 9,
        ]
    )


@dataclass(frozen=True)
class Covariance:
    """The covariance of two accuracies by their features, but for what no feature tells.

    Attributes:
        curved: share of the squared exponential, 0 to 1; the rest is linear.
        length: over which the squared exponential reaches.
        spread: mean square of the features' norm, which makes the linear part one of 1.
    """

    curved: float
    length: float
    spread: float

    def between(self, ours: Array, theirs: Array) -> Array:
        """(n, m) covariances of (n, f) and (m, f) centred features."""
        linear = LEVEL + (1 - self.curved) / self.spread * (ours @ theirs.T)
        if self.curved == 0.0:
            return linear
        near: Array = np.exp(-0.5 * cdist(ours, theirs, "sqeuclidean") / self.length**2)
        return linear + self.curved * near

    def own(self, inputs: Array) -> Array:
        """(n,) variances, the diagonal of `between(inputs, inputs)`."""
        squares: Array = np.sum(inputs**2, axis=1)
        return LEVEL + (1 - self.curved) / self.spread * squares + self.curved


@dataclass(frozen=True)
class Surrogate:
    """Predicts accuracies from features; made by `fit_surrogate`.

    Attributes:
        score: mean logarithm of the leave-one-out predictive density, but for a constant.
    """

    covariance: Covariance
    inputs: Array
    centre: Array
    level: float
    scale: float
    unexplained: float
    vectors: Array
    inverse_values: Array
    weights: Array
    score: float

    def predict(self, inputs: Array) -> tuple[Array, Array]:
        """Means and standard deviations of the accuracies at (n, f) features, both (n,).

        The deviation includes what no feature tells, for that counts when a subnet is judged.
        """
        shifted = inputs - self.centre
        cross = self.covariance.between(shifted, self.inputs)
        explained = (cross @ self.vectors) ** 2 @ self.inverse_values
        variance = np.maximum(self.covariance.own(shifted) - explained, 0.0) + self.unexplained
        return self.level + cross @ self.weights, self.scale * np.sqrt(variance)


def fit_surrogate(inputs: Array, accuracies: Array) -> Surrogate:
    """Fit to (n, f) features and (n,) accuracies, n at least 1."""
    return max(_fits(inputs, accuracies), key=lambda fit: fit.score)


def _fits(inputs: Array, accuracies: Array) -> Iterator[Surrogate]:
    centre, level = inputs.mean(axis=0), float(accuracies.mean())
    shifted, outputs = inputs - centre, accuracies - level
    distances = pdist(shifted)
    usual = float(np.median(distances)) if distances.any() else 1.0
    spread = float(np.mean(np.sum(shifted**2, axis=1))) or 1.0
    kinds = [(0.0, usual), *itertools.product(CURVED_SHARES, [usual * f for f in LENGTHS])]
    for curved, length in kinds:
        covariance = Covariance(curved, length, spread)
        values, vectors = np.linalg.eigh(covariance.between(shifted, shifted))
        rotated = vectors.T @ outputs
        for unexplained in UNEXPLAINED:
            inverse_values = 1.0 / (np.maximum(values, 0.0) + unexplained)
            weights = vectors @ (inverse_values * rotated)
            diagonal = vectors**2 @ inverse_values
            # Left out, a residual is weight / diagonal, and its variance scale² / diagonal.
            scale = max(math.sqrt(float(np.mean(weights**2 / diagonal))), LEAST_SCALE)
            yield Surrogate(
                covariance=covariance,
                inputs=shifted,
                centre=centre,
                level=level,
                scale=scale,
                unexplained=unexplained,
                vectors=vectors,
                inverse_values=inverse_values,
                weights=weights,
                score=float(np.mean(np.log(diagonal))) / 2 - math.log(scale),
            )
