from __future__ import annotations

import pickle
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwsearch.data.cache import SampleCache
from hwsearch.data.dataset import Instance, Mask, Sample, Subset, split_in_half
from hwsearch.errors import DataError

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any)


class Keys:
    """A data set whose samples have nothing but keys."""

    name, split, fingerprint = "keys", "val", "f00d"

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        return Sample(key=self.keys[index], image=np.zeros((2, 2, 3), np.uint8), instances=())

    def key(self, index: int) -> str:
        return self.keys[index]


def keys_of(subset: Subset) -> list[str]:
    return [subset.key(index) for index in range(len(subset))]


@given(MASKS, st.integers(0, 5), st.integers(0, 5))
def test_a_mask_survives_cropping_and_painting(mask: Mask, x: int, y: int) -> None:
    instance = Instance.from_mask(mask, x=x, y=y)
    painted = instance.paint(mask.shape[0] + y, mask.shape[1] + x)
    np.testing.assert_array_equal(painted[y:, x:], mask)
    assert painted.sum() == instance.area
    x0, y0, x1, y1 = instance.box.astype(int)
    outside = painted.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    edges = (painted[y0], painted[y1 - 1], painted[:, x0], painted[:, x1 - 1])
    assert all(edge.any() for edge in edges)


def test_a_crop_does_not_hold_on_to_the_whole_mask() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[3, 4] = True
    assert Instance.from_mask(mask).mask.base is None


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        Instance.from_mask(np.zeros((3, 3), dtype=bool))


@given(st.lists(st.text(max_size=4), min_size=2, max_size=9, unique=True), st.randoms())
def test_halves_share_nothing_and_ignore_the_order(keys: list[str], random: Random) -> None:
    first, second = split_in_half(Keys(keys))
    assert sorted(keys_of(first) + keys_of(second)) == sorted(keys)
    assert len(second) - len(first) in (0, 1)
    shuffled = sorted(keys, key=lambda _: random.random())
    assert set(keys_of(split_in_half(Keys(shuffled))[0])) == set(keys_of(first))


def test_halves_differ_in_split_and_fingerprint() -> None:
    dataset = Keys(list("abcdef"))
    halves = split_in_half(dataset)
    assert [half.split for half in halves] == ["val/a", "val/b"]
    assert len({dataset.fingerprint, *(half.fingerprint for half in halves)}) == 3
    assert [half[0].key for half in halves] == [half.key(0) for half in halves]


def test_a_single_sample_has_no_halves() -> None:
    with pytest.raises(DataError, match="at least two"):
        split_in_half(Keys(["a"]))


def test_the_cache_drops_what_was_unused_for_longest() -> None:
    samples = [Keys(list("abc"))[index] for index in range(3)]
    cache = SampleCache(limit_bytes=24)
    cache.put(0, samples[0])
    cache.put(1, samples[1])
    assert cache.get(0) is samples[0]
    cache.put(2, samples[2])
    assert [cache.get(index) for index in range(3)] == [samples[0], None, samples[2]]
    assert cache.held_bytes == 24


def test_a_sample_over_the_limit_is_not_kept() -> None:
    cache = SampleCache(limit_bytes=5)
    cache.put(0, Keys(["a"])[0])
    assert cache.get(0) is None
    assert cache.held_bytes == 0


def test_a_cache_travels_to_another_process_empty() -> None:
    cache = SampleCache(limit_bytes=100)
    cache.put(0, Keys(["a"])[0])
    other = pickle.loads(pickle.dumps(cache))
    assert other.get(0) is None
    other.put(0, Keys(["a"])[0])
    assert other.get(0) is not None
