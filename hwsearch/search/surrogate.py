"""A linear model of accuracy, fitted to the subnets judged so far, to rank untried ones.

Bayesian ridge regression: with some tens of trials in a space of millions, what each layer's
width is worth on its own is about all that can be learnt. Untried subnets are ranked by one draw
from the posterior (Thompson sampling), so that uncertain choices get their turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def features(space: DeploymentSpace, deployment: Deployment) -> list[float]:
    """1, a step a further precision and resolution, (kept, width, heads) of each layer, depth²."""
    config = deployment.subnet
    kept = {layer.index: layer for layer in config.layers}
    row = [1.0, *(float(deployment.precision == other) for other in space.precisions[1:])]
    row += [float(config.resolution >= step) for step in space.subnets.resolutions[1:]]
    for choices in space.subnets.layers:
        layer = kept.get(choices.index)
        if layer is None:
            row += [0.0, 0.0, 0.0]
        else:
            row += [1.0, layer.mlp_width / choices.mlp_widths[-1], layer.heads / choices.heads[-1]]
    row.append((config.depth / len(space.subnets.layers)) ** 2)
    return row


def draw_scores(
    space: DeploymentSpace,
    judged: Mapping[Deployment, float],
    candidates: Sequence[Deployment],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Scores of the candidates under one draw from the posterior; higher is better.

    The strength of the ridge is the one with the least leave-one-out error.

    Args:
        space: where all deployments come from.
        judged: mIoU of the deployments tried so far, at least one.
        candidates: the deployments to rank.
        rng: the source of the draw.

    Returns:
        (n,) scores in standard deviations of the judged accuracies.
    """
    inputs = np.array([features(space, one) for one in judged])
    accuracies = np.array(list(judged.values()))
    outputs = (accuracies - accuracies.mean()) / max(float(accuracies.std()), 1e-6)
    error, covariance = min(
        (_fit(inputs, outputs, ridge) for ridge in RIDGES), key=lambda fit: fit[0]
    )
    weights = rng.multivariate_normal(covariance @ inputs.T @ outputs, 0.5 * error * covariance)
    return np.array([features(space, one) for one in candidates]) @ weights


def _fit(
    inputs: NDArray[np.float64], outputs: NDArray[np.float64], ridge: float
) -> tuple[float, NDArray[np.floating[Any]]]:
    """Mean squared leave-one-out error, and the unscaled covariance of the weights."""
    precision = inputs.T @ inputs + ridge * np.eye(inputs.shape[1])
    covariance = np.linalg.inv(precision)
    hat = inputs @ covariance @ inputs.T
    residuals = (outputs - hat @ outputs) / (1.0 - np.clip(np.diag(hat), 0.0, 0.999))
    return float(np.mean(residuals**2)), covariance
