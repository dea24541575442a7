"""How much measured subnets tell of others, by a linear model of relative errors.

Whatever model is fitted, latency is close to a sum over costs, so the weights of such a sum are
what there is to learn. How sure of them a set of measured subnets makes, hangs on which subnets
these are, and not on what came out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwsearch.predictor.features import SCHEMA
from hwsearch.predictor.linear import Array
from hwsearch.predictor.schema import FeatureSchema

# Share of the greatest size that is added to all: what a subnet takes whatever its size. The
# fastest subnets of the reference profiles take 4 to 7 % of the slowest's latency.
CONSTANT_SHARE = 0.03
# What is known of each weight beforehand, in measurements. It stands for what the models keep to,
# such as weights that are not negative. When it was chosen, 90 % intervals held 93 % at 16 subnets
# by the mean of the four reference targets, and 95 % with 1; with 0.01 they held 86 % at 8.
PRIOR = 0.1


def relative_costs(features: Array, among: Array, schema: FeatureSchema = SCHEMA) -> Array:
    """What a linear model of relative errors sees of rows: costs over about the latency.

    What bends (`FeatureSchema.bends`) is left out: on 32 subnets it would make spreads 0.2 %
    larger at the median, 8.5 % at most, and bounds no better. The last of the schema's sizes,
    such as MACs, stands for the latency, which need not be known.

    Args:
        features: (n, f), columns as the schema has them.
        among: (m, f), the rows that give costs and sizes their unit.
        schema: which columns are costs.

    Returns:
        (n, c): a constant and each cost, over its mean among those, and then over the row's size,
        which is one in the mean among those.
    """
    costs, sizes = _costs_and_sizes(features, among, schema)
    units, unit_sizes = _costs_and_sizes(among, among, schema)
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


def studentised(errors: Array, rows: Array, folds: NDArray[np.int64]) -> Array:
    """Out-of-fold errors, each over the spread that the rows of the other folds leave it.

    Args:
        errors: (repeats, n) logarithms.
        rows: (n, c), as `relative_costs` gives them.
        folds: (repeats, n), the fold that each row was held out with.
    """
    found = np.empty_like(errors)
    for scores, own, numbers in zip(found, errors, folds, strict=True):
        for fold in np.unique(numbers):
            test = numbers == fold
            scores[test] = own[test] / spreads(rows[~test], rows[test])
    return found


def _variances(measured: Array, new: Array) -> Array:
    information = measured.T @ measured + PRIOR * np.eye(measured.shape[1])
    found: Array = np.einsum("ij,ij->i", new @ np.linalg.inv(information), new)
    return found


def _costs_and_sizes(features: Array, among: Array, schema: FeatureSchema) -> tuple[Array, Array]:
    (size,) = schema.places([schema.sizes[-1][1]])
    sizes: Array = features[:, size] + CONSTANT_SHARE * among[:, size].max()
    costs = features[:, schema.places(schema.operators or schema.costs)]
    return np.column_stack([np.ones(len(features)), costs]), sizes
