"""The Pareto front of accuracy against latency, and the area under it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(points: ArrayLike) -> NDArray[np.int64]:
    """Indices of the points that no other point dominates, by ascending latency.

    A point dominates another if it is at least as accurate and at most as slow, and better in one
    of the two. Of equal points the first stands for all.

    Args:
        points: (n, 2): accuracy (higher is better), latency (lower is better).
    """
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    fastest_first = np.lexsort((-table[:, 0], table[:, 1]))
    best_before = np.maximum.accumulate(np.r_[-np.inf, table[fastest_first, 0]])[:-1]
    front: NDArray[np.int64] = fastest_first[table[fastest_first, 0] > best_before]
    return front


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """Area that the points dominate, up to a reference point.

    Args:
        points: (n, 2): accuracy, latency. Points no better than the reference add nothing.
        reference: the worst accuracy and the worst latency that still count.
    """
    worst_accuracy, worst_latency = reference
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    table = table[(table[:, 0] > worst_accuracy) & (table[:, 1] < worst_latency)]
    front = table[pareto_front(table)]
    rights = np.r_[front[1:, 1], worst_latency]
    return float(np.sum((front[:, 0] - worst_accuracy) * (rights - front[:, 1])))
