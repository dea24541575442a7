"""Where the seconds of a training go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up seconds by the name of an activity, until they are taken.

    Args:
        device: what computes; where work is only queued there, each activity waits for its end.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    @contextmanager
    def measuring(self, activity: str) -> Iterator[None]:
        """Count the time within the context as `activity`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            spent = time.perf_counter() - began
            self._seconds[activity] = self._seconds.get(activity, 0.0) + spent

    def take(self) -> tuple[float, dict[str, float]]:
        """Seconds since the last call, and each activity's share of them; starts anew."""
        now = time.perf_counter()
        elapsed = now - self._since
        shares = {name: spent / elapsed for name, spent in self._seconds.items()}
        self._seconds, self._since = {}, now
        return elapsed, shares

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
