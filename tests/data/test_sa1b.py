from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwsearch.data.dataset import SPLITS
from hwsearch.data.rle import encode
from hwsearch.data.sa1b import Sa1bDataset, has_sa1b_split, is_sa1b, split_of
from hwsearch.errors import DataError

COUNT = 40


def mask_of(number: int) -> np.ndarray:
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:9, 3 : 5 + number % 20] = True
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(1, COUNT + 1):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(tmp_path / f"sa_{number}.jpg")
        document = {
            "image": {"image_id": number, "width": 30, "height": 20},
            "annotations": [{"id": 5, "segmentation": encode(mask_of(number))}],
        }
        (tmp_path / f"sa_{number}.json").write_text(json.dumps(document))
    return tmp_path


def test_splits_share_nothing_and_hold_everything(folder: Path) -> None:
    datasets = [Sa1bDataset(folder, split=split) for split in SPLITS]
    keys = [dataset.key(index) for dataset in datasets for index in range(len(dataset))]
    assert sorted(keys) == sorted(f"sa_{number}" for number in range(1, COUNT + 1))
    assert len({dataset.fingerprint for dataset in datasets}) == 3


def test_splits_take_eight_one_and_one_of_ten() -> None:
    splits = [split_of(f"sa_{number}") for number in range(4000)]
    shares = [splits.count(split) / len(splits) for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_the_split_of_a_name_never_changes() -> None:
    # Figures stated for a split would no longer mean the same images.
    names = ("sa_1", "sa_15", "sa_8", "sa_223750")
    assert [split_of(name) for name in names] == ["train", "val", "test", "train"]


def test_reads_an_image_and_its_masks(folder: Path) -> None:
    dataset = Sa1bDataset(folder, split="train")
    sample = dataset[0]
    number = int(sample.key.removeprefix("sa_"))
    assert sample.image.shape == (20, 30, 3)
    np.testing.assert_array_equal(sample.instances[0].paint(20, 30), mask_of(number))
    assert dataset[0] is sample


def test_an_unpaired_file_is_refused_when_opened(folder: Path) -> None:
    (folder / "sa_7.jpg").unlink()
    with pytest.raises(DataError, match=r"1 files .* sa_7 without \.jpg"):
        Sa1bDataset(folder, split="train")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON"),
        ("[]", "not of SA-1B's form"),
        ('{"image": {"width": 30, "height": 20}, "annotations": []}', "has no masks"),
        (
            '{"image": {"width": 30, "height": 20}, "annotations": [{"id": 5}]}',
            "Annotation 5 .* no segmentation",
        ),
        (
            json.dumps(
                {
                    "image": {"width": 30, "height": 21},
                    "annotations": [{"id": 5, "segmentation": encode(mask_of(1))}],
                }
            ),
            "Annotation 5 .* size",
        ),
    ],
)
def test_a_damaged_file_is_refused_when_read(folder: Path, content: str, said: str) -> None:
    dataset = Sa1bDataset(folder, split="train")
    (folder / f"{dataset.key(0)}.json").write_text(content)
    with pytest.raises(DataError, match=said):
        dataset[0]


def test_recognises_its_layout(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert is_sa1b(folder)
    assert all(has_sa1b_split(folder, split) for split in SPLITS)
    other = tmp_path_factory.mktemp("other")
    (other / "safe.json").write_text("{}")
    assert not is_sa1b(other)


def test_a_split_that_no_name_hashes_to_is_refused(tmp_path: Path) -> None:
    names = [number for number in range(100) if split_of(f"sa_{number}") == "train"][:2]
    for number in names:
        (tmp_path / f"sa_{number}.json").write_text("{}")
        Image.new("RGB", (3, 3)).save(tmp_path / f"sa_{number}.jpg")
    assert not has_sa1b_split(tmp_path, "val")
    with pytest.raises(DataError, match="hashes to split 'val'"):
        Sa1bDataset(tmp_path, split="val")
