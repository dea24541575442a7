from __future__ import annotations

from pathlib import Path

import pytest

from hwsearch.data.coco import CocoDataset
from hwsearch.data.open import has_split, open_dataset
from hwsearch.data.sa1b import Sa1bDataset
from hwsearch.data.scenes.dataset import SceneDataset
from hwsearch.data.scenes.write import write_scenes
from hwsearch.errors import DataError, UsageError


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    write_scenes(tmp_path, counts={"train": 1, "val": 1}, size=(64, 64))
    return tmp_path


def test_scenes_go_by_their_name() -> None:
    dataset = open_dataset("scenes", "val")
    assert isinstance(dataset, SceneDataset)
    assert dataset.fingerprint == SceneDataset("val", 200).fingerprint
    assert len(open_dataset("scenes", "train")) == 2000
    assert has_split("scenes", "test")


def test_a_folder_named_scenes_is_reached_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scenes(Path("scenes"), counts={"val": 1}, size=(64, 64))
    dataset = open_dataset("./scenes", "val")
    assert isinstance(dataset, CocoDataset)
    assert not has_split("./scenes", "test")


def test_a_coco_folder_is_recognised(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_dataset(str(coco), "train"), CocoDataset)
    assert [has_split(coco, split) for split in ("train", "val", "test")] == [True, True, False]
    monkeypatch.chdir(coco)
    assert open_dataset(".", "val").name == coco.name


def test_an_sa1b_folder_is_recognised(tmp_path: Path) -> None:
    for suffix in ("jpg", "json"):
        (tmp_path / f"sa_1.{suffix}").touch()
    assert isinstance(open_dataset(tmp_path, "train"), Sa1bDataset)
    assert [has_split(tmp_path, split) for split in ("train", "val")] == [True, False]


def test_a_lacking_split_names_those_there_are(coco: Path) -> None:
    with pytest.raises(DataError, match="no split 'test', only train, val"):
        open_dataset(coco, "test")


def test_an_unknown_layout_names_those_that_are_understood(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").touch()
    with pytest.raises(DataError, match=r"annotations_\{train,val,test\}\.json.*sa_N\.jpg"):
        open_dataset(tmp_path, "val")
    assert not has_split(tmp_path, "val")


def test_a_lacking_folder_is_refused(tmp_path: Path) -> None:
    for call in (open_dataset, has_split):
        with pytest.raises(DataError, match=r"nowhere.* is no folder; give `scenes`"):
            call(tmp_path / "nowhere", "val")


def test_an_unknown_split_is_refused(coco: Path) -> None:
    for call in (open_dataset, has_split):
        with pytest.raises(UsageError, match=r"'dev'.*train, val, test"):
            call(coco, "dev")
