"""Conformal intervals: how far a prediction may be off, found from out-of-fold errors.

With n errors that are exchangeable with the next one, the ⌈(n + 1)·coverage⌉-th smallest of them
bounds the next one with at least that probability (split conformal prediction: Vovk, Gammerman
and Shafer, Algorithmic Learning in a Random World, 2005, section 2.3; Lei et al., JASA 113, 2018,
theorem 2.2). Here the errors come from cross-validation, as in the jackknife and CV+ of Barber
et al., Annals of Statistics 49, 2021; unlike CV+, the interval is laid round the prediction of the
model that was fitted on all rows. So coverage holds in practice, for stable models, not as a
theorem: CV+ itself would assure 1 - 2·(1 - coverage) and need all the folds' models.

Errors are logarithms of measured over predicted latency: intervals scale with the prediction. They
come in units of what the rows that a prediction was made from leave uncertain (`information.py`):
measured subnets are chosen to differ, so that each, held out, is harder to predict than most new
ones, and bounds of the plain errors would be too wide. That errors count in units is Lei et al.'s
idea (section 5.2), whose units come from other rows and keep the theorem; these are an
approximation, by how the errors of a linear model would scatter.

Why not a library. MAPIE 1.6 gives the same bound where it gives one (the tests hold the two
against each other), but refuses 90 % below ten rows, where most few-shot fits are, and has no
one-sided bound, which is what a search needs; its CV+ keeps every fold's model and takes two
quantiles over the measured rows for each predicted one: seconds for 100,000 subnets, which take
half of one here. crepes 0.9 takes residuals as they are, but brings pandas along, and rounds
(1 - 0.9) · 10 down to zero: nine rows and 90 % give it no bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import UsageError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorBound:
    """A bound of the errors, in their units, and whether the samples were enough to find it.

    Where `extrapolated`, the coverage asked for lies beyond n / (n + 1): the bound is the largest
    error seen times ln(1 / (1 - coverage)) / ln(n + 1), its growth if errors have exponential
    tails (more cautious than normal ones).
    """

    size: float
    extrapolated: bool


def two_sided(errors: ArrayLike, coverage: float) -> ErrorBound:
    """A bound of the error's size, so that measured latencies fall within it either way.

    Args:
        errors: (repeats, n) out-of-fold logarithmic errors, in one unit or each in its own.
        coverage: between 0 and 1, exclusive.

    Raises:
        UsageError: `coverage` is not between 0 and 1.
    """
    return _bound(np.abs(np.asarray(errors)), coverage)


def one_sided(errors: ArrayLike, coverage: float) -> ErrorBound:
    """A bound of how much slower than predicted a subnet is; never below zero.

    Raises:
        UsageError: `coverage` is not between 0 and 1.
    """
    bound = _bound(np.asarray(errors), coverage)
    return ErrorBound(max(bound.size, 0.0), bound.extrapolated)


def found_coverage(errors: ArrayLike, coverage: float) -> float:
    """Share of the rows that the two-sided bound of all other rows holds.

    Errors that come in units count in those that they have: what the row itself had a part in, such
    as the sizes that other rows' errors are over, is not found anew without it.
    """
    residuals = np.asarray(errors)
    held = [
        np.abs(residuals[:, row]) <= two_sided(np.delete(residuals, row, axis=1), coverage).size
        for row in range(residuals.shape[1])
    ]
    return float(np.mean(held))


def _bound(errors: Array, coverage: float) -> ErrorBound:
    """The conformal quantile; the median over repeats, each of which is a valid one."""
    if not 0 < coverage < 1:
        raise UsageError(f"A coverage of {coverage} can't be met: give a number between 0 and 1.")
    n = errors.shape[1]
    # Rounded first: 0.9 · 10 has to be 9, whatever the last bit of the product.
    rank = math.ceil(round((n + 1) * coverage, 9))
    if rank <= n:
        return ErrorBound(float(np.median(np.sort(errors, axis=1)[:, rank - 1])), False)
    growth = max(1.0, math.log(1 / (1 - coverage)) / math.log(n + 1))
    return ErrorBound(float(np.median(np.abs(errors).max(axis=1))) * growth, True)
