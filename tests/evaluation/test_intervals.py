"""Bootstrap intervals over images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.evaluation.intervals import Clustered, mean_interval


def scattered(clusters: int, seed: int, *, each: int = 3) -> Clustered:
    rng = np.random.default_rng(seed)
    return Clustered(rng.uniform(0, 1, clusters * each), np.repeat(np.arange(clusters), each))


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


@settings(max_examples=25)
@given(clusters=st.integers(2, 60), seed=st.integers(0, 99))
def test_the_interval_lies_around_the_mean(clusters: int, seed: int):
    values = scattered(clusters, seed)
    low, high = mean_interval([values], resamples=300)
    assert values.values.min() <= low <= values.values.mean() <= high <= values.values.max()


def test_it_shrinks_with_the_root_of_the_images():
    few, many = (
        np.mean([width(mean_interval([scattered(images, seed)])) for seed in range(40)])
        for images in (25, 400)
    )
    assert few == pytest.approx(4 * many, rel=0.1)


def test_it_covers_the_truth_as_often_as_it_says():
    intervals = [mean_interval([scattered(60, seed)]) for seed in range(300)]
    assert np.mean([low <= 0.5 <= high for low, high in intervals]) == pytest.approx(0.94, abs=0.03)


def test_it_has_the_width_of_theory():
    """Of 200 independent values uniform in [0, 1] the mean has sd 1 / √(12 · 200)."""
    values = scattered(200, seed=2, each=1)
    assert width(mean_interval([values])) == pytest.approx(2 * 1.96 / np.sqrt(2400), rel=0.1)


@settings(max_examples=25)
@given(images=st.integers(5, 40), each=st.integers(3, 8), seed=st.integers(0, 99))
def test_identical_objects_of_an_image_count_as_one(images: int, each: int, seed: int):
    """Whoever resampled objects would think to know √each times as much."""
    by_image = np.random.default_rng(seed).uniform(0, 1, images)
    repeated = np.repeat(by_image, each)
    clustered = mean_interval([Clustered(repeated, np.repeat(np.arange(images), each))])
    naive = mean_interval([Clustered(repeated, np.arange(images * each))])
    once = mean_interval([Clustered(by_image, np.arange(images))])
    assert width(clustered) > 1.3 * width(naive)
    assert clustered == pytest.approx(once)


def test_it_depends_on_the_seed_but_not_on_the_names_of_clusters():
    values = scattered(40, seed=3)
    renamed = Clustered(values.values, 1000 + 7 * values.clusters)
    assert mean_interval([values]) == mean_interval([renamed])
    assert mean_interval([values]) != mean_interval([values], seed=1)


def test_sets_weigh_alike_and_are_resampled_apart():
    """Were both sets drawn alike, the mean of two equal sets would vary as much as one."""
    one = scattered(50, seed=4)
    two = mean_interval([one, one])
    assert width(two) == pytest.approx(width(mean_interval([one])) / np.sqrt(2), rel=0.15)
    exact = Clustered(np.full(500, 0.2), np.arange(500))
    low, high = mean_interval([one, exact])
    alone = mean_interval([one])
    assert (low, high) == pytest.approx(tuple((bound + 0.2) / 2 for bound in alone), abs=0.005)


def test_one_image_says_nothing_about_others():
    single = Clustered(np.array([0.2, 0.9]), np.zeros(2, np.int64))
    assert mean_interval([single]) is None
    assert mean_interval([scattered(10, seed=0), single]) is None


def test_many_images_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch):
    values = scattered(30, seed=5)
    whole = mean_interval([values])
    monkeypatch.setattr("hwsearch.evaluation.intervals._DRAWS_AT_ONCE", 1)
    assert mean_interval([values]) == pytest.approx(whole)
