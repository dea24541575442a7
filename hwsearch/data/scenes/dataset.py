"""The scenes as a data set: scene i is composed when asked for."""

from __future__ import annotations

import numpy as np

from hwsearch.data.cache import DEFAULT_CACHE_BYTES, SampleCache
from hwsearch.data.dataset import SPLITS, Sample, Split
from hwsearch.data.scenes.compose import compose
from hwsearch.data.scenes.photographs import digest, names
from hwsearch.errors import UsageError
from hwsearch.records import short_digest

# Raise it when a change of the recipe changes the scenes: accuracies are then no longer comparable.
RECIPE_VERSION = 1
DEFAULT_SIZE = (256, 384)
DEFAULT_COUNTS: dict[Split, int] = {"train": 2000, "val": 200, "test": 200}


class SceneDataset:
    """Scenes with exact masks, composed from the photographs of one split.

    Scene i depends on the split, the size range, the seed and i alone, not on `count` or on which
    scenes were asked for before.

    Args:
        split: Which photographs are cut up.
        count: How many scenes there are.
        size: Least and greatest side of a scene in pixels; both sides are drawn from it.
        seed: Another seed gives other scenes of the same photographs.
        cache_bytes: Composed images and masks that are kept in memory.

    Raises:
        UsageError: an argument is out of range.
        DataError: a photograph is missing from the installed packages.
    """

    name = "scenes"

    def __init__(
        self,
        split: Split,
        count: int,
        *,
        size: tuple[int, int] = DEFAULT_SIZE,
        seed: int = 0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        check_scene_arguments(split=split, count=count, size=size, seed=seed)
        self.split: str = split
        self._photographs = names(split)
        self._count = count
        self._size = size
        self._seed = seed
        self._stream = (SPLITS.index(split), seed)
        self._cache = SampleCache(cache_bytes)
        recipe = f"scenes:{RECIPE_VERSION}:{split}:{count}:{size}:{seed}:{digest(split)}"
        self.fingerprint = short_digest(recipe)

    def __len__(self) -> int:
        return self._count

    def key(self, index: int) -> str:
        """Split, seed and number of the scene."""
        number = range(self._count)[index]
        return f"{self.split}-{self._seed}-{number:06d}"

    def __getitem__(self, index: int) -> Sample:
        """Compose the scene, or take it from the cache."""
        number = range(self._count)[index]
        sample = self._cache.get(number)
        if sample is None:
            sample = self._compose(number)
            self._cache.put(number, sample)
        return sample

    def _compose(self, number: int) -> Sample:
        rng = np.random.default_rng([*self._stream, number])
        least, greatest = self._size
        height, width = (int(side) for side in rng.integers(least, greatest + 1, 2))
        image, instances = compose(self._photographs, rng, height, width)
        return Sample(key=self.key(number), image=image, instances=instances)


def check_scene_arguments(*, split: Split, count: int, size: tuple[int, int], seed: int) -> None:
    """Refuse arguments that make no scenes.

    Raises:
        UsageError: an argument is out of range.
    """
    if split not in SPLITS:
        raise UsageError(f"Scenes have the splits {', '.join(SPLITS)}, not {split!r}.")
    if count < 1:
        raise UsageError(f"The number of scenes has to be 1 or more, not {count}.")
    if not 64 <= size[0] <= size[1] <= 2048:
        raise UsageError(f"Sides of a scene are 64 to 2048 pixels, the least first, not {size}.")
    if seed < 0:
        raise UsageError(f"A seed is a whole number of 0 or more, not {seed}.")
