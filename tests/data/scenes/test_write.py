from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hwsearch.data.dataset import Split
from hwsearch.data.open import open_dataset
from hwsearch.data.scenes.dataset import SceneDataset
from hwsearch.data.scenes.write import write_scenes
from hwsearch.errors import DataError, UsageError
from hwsearch.progress import Advance, SilentProgress

COUNTS: dict[Split, int] = {"train": 3, "val": 2}
SIZE = (64, 96)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_folder_holds_the_same_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path / "out", counts=COUNTS, seed=2, size=SIZE)
    for split, count in COUNTS.items():
        written = open_dataset(tmp_path / "out", split)
        composed = SceneDataset(split, count, seed=2, size=SIZE)
        assert len(written) == len(composed)
        for number in range(count):
            first, second = written[number], composed[number]
            np.testing.assert_array_equal(first.image, second.image)
            for one, other in zip(first.instances, second.instances, strict=True):
                assert (one.x, one.y) == (other.x, other.y)
                np.testing.assert_array_equal(one.mask, other.mask)


def test_a_second_run_writes_the_same_bytes_and_mends_the_folder(tmp_path: Path) -> None:
    write_scenes(tmp_path, counts=COUNTS, size=SIZE)
    before = digests(tmp_path)
    assert len(before) == 5 + 2 + 1
    (tmp_path / "annotations_val.json").unlink()
    (tmp_path / "images" / "val-0-000001.png").write_bytes(b"half a pic")
    write_scenes(tmp_path, counts=dict(reversed(COUNTS.items())), size=SIZE)
    assert digests(tmp_path) == before


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty and holds no scenes"):
        write_scenes(tmp_path, counts=COUNTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_arguments_do_not_mix_with_old_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path, counts={"val": 1}, size=SIZE)
    before = digests(tmp_path)
    with pytest.raises(DataError, match="made with other arguments"):
        write_scenes(tmp_path, counts={"val": 2}, size=SIZE)
    assert digests(tmp_path) == before


def test_a_file_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="can't be written to"):
        write_scenes(tmp_path / "out", counts=COUNTS)


def test_bad_counts_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for counts in ({}, {"val": 0}):
        with pytest.raises(UsageError):
            write_scenes(tmp_path / "out", counts=counts)
    assert not (tmp_path / "out").exists()


def test_progress_is_told_of_each_scene(tmp_path: Path) -> None:
    done: list[float] = []

    class Counting(SilentProgress):
        @contextmanager
        def task(self, description: str, total: float) -> Iterator[Advance]:
            assert total == 5
            yield lambda amount=1, note="": done.append(amount)

    write_scenes(tmp_path, counts=COUNTS, size=SIZE, progress=Counting())
    assert sum(done) == 5
