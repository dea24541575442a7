from __future__ import annotations

import numpy as np
import pytest

from hwsearch.data.dataset import SPLITS
from hwsearch.data.scenes.photographs import PHOTOGRAPHS, digest, names, showcase, untouched
from hwsearch.errors import UsageError


def test_every_photograph_is_shipped_and_belongs_to_one_split() -> None:
    for photograph in PHOTOGRAPHS:
        image = untouched(photograph.name)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert min(image.shape[:2]) >= 128
    files = [photograph.file for photograph in PHOTOGRAPHS]
    assert len(set(files)) == len(files)
    assert {name for split in SPLITS for name in names(split)} == {
        photograph.name for photograph in PHOTOGRAPHS
    }
    assert len({digest(split) for split in SPLITS}) == 3


def test_no_two_splits_show_the_same_picture() -> None:
    # A stereo pair or a copy at another size would correlate almost perfectly when shrunk.
    def thumbnail(name: str) -> np.ndarray:
        image = untouched(name).mean(axis=2)
        rows = np.linspace(0, image.shape[0] - 1, 24).astype(int)
        columns = np.linspace(0, image.shape[1] - 1, 24).astype(int)
        return image[np.ix_(rows, columns)].ravel()

    chosen = [photograph.name for photograph in PHOTOGRAPHS]
    alike = np.corrcoef([thumbnail(name) for name in chosen]) - np.eye(len(chosen))
    assert alike.max() < 0.8


def test_a_photograph_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        untouched("coins")[0, 0] = 0


def test_an_unknown_photograph_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'dog'.*chelsea"):
        untouched("dog")


def test_showcase_boxes_lie_in_pictures_never_trained_on() -> None:
    shown = showcase()
    assert {picture.name for picture in shown} == {"coins", "chelsea", "coffee", "rocket"}
    assert not {picture.name for picture in shown} & set(names("train"))
    for picture in shown:
        height, width = picture.image.shape[:2]
        assert 2 <= len(picture.boxes) <= 5
        assert (picture.boxes >= 0).all()
        assert (picture.boxes <= [width, height, width, height]).all()
        assert (picture.boxes[:, 2:] - picture.boxes[:, :2] >= 15).all()


def test_showcase_coins_are_brighter_than_their_surroundings() -> None:
    coins = next(picture for picture in showcase() if picture.name == "coins")
    image = coins.image.astype(float)
    for x0, y0, x1, y1 in coins.boxes.astype(int):
        window = image[y0:y1, x0:x1]
        height, width = window.shape[:2]
        middle = window[height // 4 : -height // 4, width // 4 : -width // 4]
        corners = window[[1, 1, -2, -2], [1, -2, 1, -2]]
        assert middle.mean() > corners.mean() + 20
