"""A cache of samples that is bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

from hwsearch.data.dataset import Sample

DEFAULT_CACHE_BYTES = 1 << 30


class SampleCache:
    """Keeps the samples used last, up to `limit_bytes` of pixels and masks; safe in threads."""

    def __init__(self, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._samples: OrderedDict[int, Sample] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[SampleCache], tuple[int]]:
        # A data loader's worker process starts with an empty cache; locks don't travel.
        return SampleCache, (self._limit,)

    @property
    def held_bytes(self) -> int:
        """Bytes that the kept samples take."""
        return self._held

    def get(self, index: int) -> Sample | None:
        """The sample, if it is still here."""
        with self._lock:
            sample = self._samples.get(index)
            if sample is not None:
                self._samples.move_to_end(index)
            return sample

    def put(self, index: int, sample: Sample) -> None:
        """Keep the sample, and drop those unused for longest if the limit is passed."""
        with self._lock:
            if index in self._samples:
                return
            self._samples[index] = sample
            self._held += sample.nbytes
            while self._held > self._limit:
                _, dropped = self._samples.popitem(last=False)
                self._held -= dropped.nbytes
