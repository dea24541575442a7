"""Rows of the latency tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.predictor.crossvalidation import score
from hwsearch.predictor.models import CONSTANT

Array = NDArray[np.float64]
Row = dict[str, Any]  # one line of a table, as JSON holds it


def errors_of(name: str, predicted: Array, measured: Array) -> Row:
    """A model's errors on held-out rows, in percent; a constant has no order."""
    found = score(name, predicted[None], measured)
    return {
        "mape": found.mape_percent,
        "within_5": 100 * found.within_5_percent,
        "within_10": 100 * found.within_10_percent,
        "kendall_tau": None if name == CONSTANT else found.kendall_tau,
    }


def means_of(rows: list[Row]) -> Row:
    """Each figure's mean over those rows that have it."""
    means: Row = {}
    for field in rows[0]:
        values = [row[field] for row in rows if row[field] is not None]
        means[field] = float(np.mean(values)) if values else None
    return means
