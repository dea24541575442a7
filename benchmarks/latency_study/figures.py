"""Rows of the latency tables, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.predictor.crossvalidation import score
from hwsearch.predictor.models import CONSTANT

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Held = NDArray[np.bool_]
Row = dict[str, Any]  # one line of a table, as JSON holds it

DEFAULT = "default"  # what hwsearch chooses from the training rows
COVERAGE = 0.9


def errors_of(name: str, predicted: Array, measured: Array) -> Row:
    """A model's errors on held-out rows, in percent; a constant has no order."""
    found = score(name, predicted[None], measured)
    return {
        "mape": found.mape_percent,
        "within_5": 100 * found.within_5_percent,
        "within_10": 100 * found.within_10_percent,
        "kendall_tau": None if name == CONSTANT else found.kendall_tau,
    }


def means_of(rows: Sequence[Row], fields: Sequence[str] | None = None) -> Row:
    """Each figure's mean over those rows that have it; None: of all figures."""
    means: Row = {}
    for field in rows[0] if fields is None else fields:
        values = [row[field] for row in rows if row[field] is not None]
        means[field] = float(np.mean(values)) if values else None
    return means


def shares_held(inside: Held, below: Held, front: Rows) -> Row:
    """Percent of held-out latencies that intervals and one-sided bounds hold, on a front too."""
    return {
        "covered": 100 * float(inside.mean()),
        "front_covered": 100 * float(inside[front].mean()),
        "below_upper": 100 * float(below.mean()),
        "front_below_upper": 100 * float(below[front].mean()),
    }


def error_of_share(draws: Sequence[tuple[Rows, Held]]) -> float | None:
    """Standard error in percent of a share, the mean of those of several draws.

    A subnet comes in many draws, and is held or not in most of them alike; those of one draw were
    judged by one fit. So both are clusters (Cameron, Gelbach and Miller, Journal of Business &
    Economic Statistics 29, 2011).

    Args:
        draws: for each, which subnets were judged, and which of these are held.

    Returns:
        None where all or none are held, which tells nothing of the error.
    """
    subnets = np.concatenate([rows for rows, _ in draws])
    draw = np.repeat(np.arange(len(draws)), [len(rows) for rows, _ in draws])
    held = np.concatenate([found for _, found in draws]).astype(np.float64)
    weights = 1 / (len(draws) * np.bincount(draw)[draw])
    share = float(weights @ held)
    if not 0 < held.mean() < 1:
        return None
    errors = weights * (held - share)
    _, subnet = np.unique(subnets, return_inverse=True)
    by_subnet, by_draw = (np.bincount(group, weights=errors) for group in (subnet, draw))
    variance = (by_subnet**2).sum() + (by_draw**2).sum() - (errors**2).sum()
    return float(100 * np.sqrt(max(variance, (errors**2).sum())))


def front(latencies_ms: Array, sizes: Array) -> Rows:
    """Rows that no other beats: none is both at least as fast and larger.

    What a search would pick if accuracy grew with size; the picks were chosen by their
    predictions, which is what intervals have to survive.
    """
    order = np.lexsort((-sizes, latencies_ms))
    best = np.maximum.accumulate(sizes[order])
    is_better = np.concatenate([[True], best[1:] > best[:-1]])
    found: Rows = order[is_better]
    return found
