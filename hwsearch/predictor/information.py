"""How much measured subnets tell of others, by a linear model of relative errors.

Whatever model is fitted, latency is close to a sum over costs, so the weights of such a sum are
what there is to learn. How sure of them a set of measured subnets makes, hangs on which subnets
these are, and not on what came out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsearch.predictor.features import SCHEMA
from hwsearch.predictor.linear import Array

# Share of the greatest MACs that is added to all: what a subnet takes whatever its size.
CONSTANT_SHARE = 0.03
# How little is known of the weights before the first measurement, as a share of one: it stands for
# what the models keep to, such as weights that are not negative.
PRIOR = 0.1


def relative_costs(features: Array, among: Array) -> Array:
    """What a linear model of relative errors sees of subnets: costs over about the latency.

    MACs stand for the latency, which need not be known.

    Args:
        features: (n, f), columns as `SCHEMA` has them.
        among: (m, f), the subnets that give costs and sizes their unit.

    Returns:
        (n, c): a constant and each column of `SCHEMA.operators`, over its mean among those, and
        then over the row's size, which is one in the mean among those.
    """
    costs, sizes = _costs_and_sizes(features, among)
    units, unit_sizes = _costs_and_sizes(among, among)
    means = np.maximum(units.mean(axis=0), 1e-9)
    relative: Array = costs / means * (unit_sizes.mean() / sizes)[:, None]
    return relative


def most_informative(rows: Array, measured: Sequence[int], among: Sequence[int]) -> int:
    """Which subnet to measure for a linear model to be the surest of its weights.

    It is the one whose prediction the measured ones leave the least certain, and that makes the
    determinant of the information matrix grow the most: a step of D-optimal design (Fedorov,
    Theory of Optimal Experiments, 1972, chapter 2).

    Args:
        rows: (n, c), as `relative_costs` gives them.
        measured: rows that are measured already; may be empty.
        among: rows to choose from, at least one.
    """
    return among[int(np.argmax(_variances(rows[list(measured)], rows[list(among)])))]


def spreads(measured: Array, new: Array) -> Array:
    """How far predictions of new subnets may be off, (n,), where a measurement's error is one.

    The error of a prediction against a measurement is the measurement's own and that of the
    weights: 1 + xᵀ (XᵀX + prior)⁻¹ x in squares.

    Args:
        measured: (m, c), rows as `relative_costs` gives them.
        new: (n, c), likewise.
    """
    found: Array = np.sqrt(1 + _variances(measured, new))
    return found


def held_out_spreads(measured: Array) -> Array:
    """The same of each measured subnet, were it predicted from the others, (m,).

    With h the leverage xᵀ (XᵀX + prior)⁻¹ x, it is 1 / √(1 - h) (Cook and Weisberg, Residuals and
    Influence in Regression, 1982, section 2.2).
    """
    found: Array = 1 / np.sqrt(1 - _variances(measured, measured))
    return found


def _variances(measured: Array, new: Array) -> Array:
    information = measured.T @ measured + PRIOR * np.eye(measured.shape[1])
    found: Array = np.einsum("ij,ij->i", new @ np.linalg.inv(information), new)
    return found


def _costs_and_sizes(features: Array, among: Array) -> tuple[Array, Array]:
    (macs,) = SCHEMA.places(["macs"])
    sizes: Array = features[:, macs] + CONSTANT_SHARE * among[:, macs].max()
    costs = features[:, SCHEMA.places(SCHEMA.operators)]
    return np.column_stack([np.ones(len(features)), costs]), sizes
