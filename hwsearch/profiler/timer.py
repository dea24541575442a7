"""The arithmetic of timing: medians, their intervals, and the drift that a reference shows."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from hwsearch.records import LatencyStats

Floats = NDArray[np.float64]


def summarise(seconds: Floats, *, rng: np.random.Generator) -> LatencyStats:
    """Statistics of raw latencies in seconds, shape (n,); the standard deviation is of a sample."""
    ms = np.asarray(seconds, dtype=np.float64) * 1e3
    p50, p90, p95 = np.percentile(ms, (50, 90, 95)).tolist()
    low, high = bootstrap_median(ms, rng=rng)
    return LatencyStats(
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        mean_ms=float(ms.mean()),
        std_ms=float(ms.std(ddof=1)) if ms.size > 1 else 0.0,
        low_ms=low,
        high_ms=high,
        n=ms.size,
    )


def bootstrap_median(
    values: Floats, *, rng: np.random.Generator, coverage: float = 0.95, resamples: int = 1000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median of `values`, shape (n,).

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    draws = values[rng.integers(values.size, size=(resamples, values.size))]
    tail = 50 * (1 - coverage)
    low, high = np.percentile(np.median(draws, axis=1), (tail, 100 - tail))
    return float(low), float(high)


def wander(values: Floats) -> float:
    """How far values in order of time went apart: (most − least) / median.

    Each value is first replaced by the median of itself and its neighbours, so that one slow run
    is not taken for a machine that changed its speed. Fewer than three values count as they are.
    """
    smooth = (
        np.median(np.lib.stride_tricks.sliding_window_view(values, 3), axis=1)
        if values.size >= 3
        else values
    )
    return float((smooth.max() - smooth.min()) / np.median(values))


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Keep Python's garbage collector from running inside the context."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
