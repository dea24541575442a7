"""A second process that loads one core, on and off."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

PERIODS_S = (0.5, 6.0)  # how long it works, and how long it rests, drawn anew each time


@contextmanager
def disturbed(*, seed: int = 0) -> Iterator[None]:
    """Load one core at irregular times as long as the context lasts."""
    process = multiprocessing.get_context("spawn").Process(target=_disturb, args=(seed,))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _disturb(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((256, 256)).astype(np.float32)
    with threadpool_limits(1):
        while True:
            end = time.monotonic() + rng.uniform(*PERIODS_S)
            while time.monotonic() < end:
                matrix = np.tanh(matrix @ matrix.T / 256)
            time.sleep(rng.uniform(*PERIODS_S))
