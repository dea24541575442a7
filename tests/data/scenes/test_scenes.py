from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest

from hwsearch.data.dataset import Sample, Split
from hwsearch.data.scenes import compose as composing
from hwsearch.data.scenes import light
from hwsearch.data.scenes.dataset import SceneDataset
from hwsearch.data.scenes.light import Colours
from hwsearch.data.scenes.photographs import names
from hwsearch.errors import UsageError

SIZE = (96, 128)


def same(first: Sample, second: Sample) -> bool:
    if first.image.shape != second.image.shape or len(first.instances) != len(second.instances):
        return False
    height, width = first.image.shape[:2]
    masks = all(
        (one.paint(height, width) == other.paint(height, width)).all()
        for one, other in zip(first.instances, second.instances, strict=True)
    )
    return masks and bool((first.image == second.image).all())


def test_a_scene_depends_on_split_seed_and_number_alone() -> None:
    dataset = SceneDataset("train", 5, size=SIZE, seed=3)
    forwards = [dataset[number] for number in range(5)]
    longer = SceneDataset("train", 50, size=SIZE, seed=3)
    assert all(same(longer[number], forwards[number]) for number in reversed(range(5)))
    assert not same(forwards[0], forwards[1])
    assert not same(SceneDataset("train", 5, size=SIZE, seed=4)[0], forwards[0])
    assert not same(SceneDataset("val", 5, size=SIZE, seed=3)[0], forwards[0])


def test_scenes_have_the_sizes_and_objects_they_should() -> None:
    dataset = SceneDataset("val", 25, size=(128, 160))
    counts = []
    for number in range(len(dataset)):
        sample = dataset[number]
        height, width = sample.image.shape[:2]
        assert sample.image.dtype == np.uint8
        assert 128 <= min(height, width) <= max(height, width) <= 160
        counts.append(len(sample.instances))
        painted = [instance.paint(height, width) for instance in sample.instances]
        assert np.sum(painted, axis=0).max() == 1, "a pixel belongs to one object"
        for instance in sample.instances:
            assert instance.area >= composing.MIN_VISIBLE_PIXELS
            assert max(instance.width, instance.height) <= 0.7 * min(height, width)
    assert set(counts) <= set(range(1, 8))
    assert np.mean(counts) > 2.5


def test_masks_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a black ground, with white objects and a perfect camera, the image is the mask."""

    def plain(name: str, rng: np.random.Generator, height: int, width: int, **_: object) -> Colours:
        colour = 0 if (height, width) == (120, 140) else 255
        return np.full((height, width, 3), colour, dtype=np.float32)

    monkeypatch.setattr(composing, "cut_patch", plain)
    monkeypatch.setattr(composing, "_cast_shadow", lambda *_: None)
    monkeypatch.setattr(composing, "_set_apart", lambda colours, *_: colours)
    monkeypatch.setattr(light, "shade", lambda colours, *_: colours)
    monkeypatch.setattr(light, "rounded", lambda colours, *_: colours)
    monkeypatch.setattr(light, "degrade", lambda colours, _: light.to_pixels(colours))
    monkeypatch.setattr(composing, "MIN_VISIBLE_SHARE", 0)
    monkeypatch.setattr(composing, "MIN_VISIBLE_PIXELS", 1)
    for seed in range(8):
        image, instances = composing.compose(("a", "b"), np.random.default_rng(seed), 120, 140)
        union = np.any([instance.paint(120, 140) for instance in instances], axis=0)
        covered = image[..., 0] / 255
        # Where two soft edges meet, half-covered twice is more than half.
        assert covered[union].min() >= 0.49
        assert covered[~union].max() < 0.76
        assert np.mean((covered >= 0.5) != union) < 0.001


def test_hidden_objects_are_dropped_and_half_hidden_ones_keep_what_is_seen() -> None:
    owner = np.zeros((40, 40), dtype=np.uint8)
    owner[:20, :20] = 1
    owner[:18, :20] = 2
    owner[30:, :] = 3
    owner[30:, :20] = 4
    instances = composing._visible(owner, [400, 360, 400, 200])
    assert [instance.box.tolist() for instance in instances] == [
        [0, 0, 20, 18],
        [20, 30, 40, 40],
        [0, 30, 20, 40],
    ]


def test_difficulty_varies_but_objects_can_be_seen() -> None:
    dataset = SceneDataset("train", 30, size=(128, 128))
    contrasts = []
    for number in range(len(dataset)):
        sample = dataset[number]
        image = sample.image.astype(float)
        anything = np.any([one.paint(128, 128) for one in sample.instances], axis=0)
        for instance in sample.instances:
            mask = instance.paint(128, 128)
            contrasts.append(np.linalg.norm(image[mask].mean(0) - image[~anything].mean(0)))
    low, middle, high = np.quantile(contrasts, [0.05, 0.5, 0.95])
    assert low < 40
    assert middle > 40
    assert high > 110


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_only_photographs_of_the_split_are_used(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_patch = Mock(wraps=composing.cut_patch)
    monkeypatch.setattr(composing, "cut_patch", cut_patch)
    dataset = SceneDataset(split, 12, size=(64, 64))
    for number in range(len(dataset)):
        _ = dataset[number]
    assert {call.args[0] for call in cut_patch.call_args_list} == set(names(split))


def test_fingerprint_follows_every_argument() -> None:
    base = SceneDataset("val", 5, size=SIZE, seed=1)
    others = [
        SceneDataset("test", 5, size=SIZE, seed=1),
        SceneDataset("val", 6, size=SIZE, seed=1),
        SceneDataset("val", 5, size=(96, 129), seed=1),
        SceneDataset("val", 5, size=SIZE, seed=2),
    ]
    assert len({dataset.fingerprint for dataset in [base, *others]}) == 5
    assert SceneDataset("val", 5, size=SIZE, seed=1).fingerprint == base.fingerprint


def test_scenes_are_kept() -> None:
    dataset = SceneDataset("val", 3, size=SIZE)
    assert dataset[2] is dataset[-1]
    assert dataset[2].key == dataset.key(2) == "val-0-000002"
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 0}, "1 or more, not 0"),
        ({"seed": -1}, "0 or more, not -1"),
        ({"size": (200, 100)}, "not \\(200, 100\\)"),
        ({"size": (10, 100)}, "64 to 2048"),
        ({"split": "dev"}, "not 'dev'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SceneDataset(**{"split": "val", "count": 3, **arguments})
