"""How far a mean IoU would move if other images had been drawn: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)
_DRAWS_AT_ONCE = 2**22  # 32 MB of indices


@dataclass(frozen=True, eq=False)
class Clustered:
    """Values (n,), and the cluster (n,) that each belongs to: here IoUs, and their images."""

    values: Floats
    clusters: NDArray[np.int64]


def mean_interval(
    sets: Sequence[Clustered], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean over sets of each set's mean value.

    Objects of one image share its light, its focus and its difficulties, so whole images are
    drawn with replacement, not objects (the cluster bootstrap: Davison and Hinkley 1997, §3.8).
    Each set is resampled by itself.

    Args:
        sets: one or more sets.
        resamples: how often to draw.
        seed: source of the draws.

    Returns:
        Lower and upper bound; None where a set has fewer than two clusters, since one image says
        nothing about others.
    """
    rng = np.random.default_rng(seed)
    means = []
    for each in sets:
        _, places = np.unique(each.clusters, return_inverse=True)
        sums = np.bincount(places, weights=each.values).astype(np.float64, copy=False)
        counts = np.bincount(places)
        if len(counts) < 2:
            return None
        means.append(_resampled_means(sums, counts, resamples, rng))
    low, high = np.percentile(np.mean(means, axis=0), _PERCENTILES)
    return float(low), float(high)


def _resampled_means(
    sums: Floats, counts: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Floats:
    """The mean of all values, `resamples` times, each from as many clusters as there are."""
    rows = max(1, _DRAWS_AT_ONCE // len(sums))
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        drawn = rng.integers(len(sums), size=(len(part), len(sums)))
        part[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
