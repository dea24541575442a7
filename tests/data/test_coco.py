from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hwsearch.data.coco import CocoDataset, find_coco
from hwsearch.data.dataset import Mask, Pixels
from hwsearch.data.rle import encode
from hwsearch.errors import DataError

Document = dict[str, Any]
HEIGHT, WIDTH = 24, 32
# The two objects of each image: first and past-the-last row, then column.
POLYGON, RUNS = (2, 10, 3, 9), (12, 20, 14, 30)


def rectangle(y0: int, y1: int, x0: int, x1: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def uncompressed(mask: Mask) -> Document:
    flat = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def picture(number: int) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def document(count: int) -> Document:
    y0, y1, x0, x1 = POLYGON
    segmentations = [[[x0, y0, x1, y0, x1, y1, x0, y1]]], encode(rectangle(*RUNS))
    return {
        "images": [
            {"id": 10 + number, "file_name": f"a{number}.png", "width": WIDTH, "height": HEIGHT}
            for number in range(count)
        ],
        "annotations": [
            {
                "id": 100 * number + place,
                "image_id": 10 + number,
                "category_id": 7 + place,
                "segmentation": segmentation[0] if place == 0 else segmentation,
            }
            for number in range(count)
            for place, segmentation in enumerate(segmentations)
        ],
    }


def make(root: Path, edit: Callable[[Document], object] = lambda _: None, count: int = 3) -> Path:
    """A folder named `flowers`, whose annotations `edit` may have damaged."""
    folder = root / "flowers"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / "images" / f"a{number}.png")
    content = document(count)
    edit(content)
    (folder / "annotations_val.json").write_text(json.dumps(content))
    return folder


def open_val(folder: Path, **options: int) -> CocoDataset:
    files = find_coco(folder, "val")
    assert files is not None
    return CocoDataset(files, split="val", **options)


def test_reads_images_polygons_and_runs(tmp_path: Path) -> None:
    dataset = open_val(make(tmp_path))

    assert (dataset.name, dataset.split, len(dataset)) == ("flowers", "val", 3)
    sample = dataset[1]
    assert sample.key == dataset.key(1) == "a1.png"
    np.testing.assert_array_equal(sample.image, picture(1))
    for instance, expected in zip(sample.instances, (POLYGON, RUNS), strict=True):
        y0, y1, x0, x1 = expected
        np.testing.assert_array_equal(instance.paint(HEIGHT, WIDTH), rectangle(*expected))
        assert instance.box.tolist() == [x0, y0, x1, y1]
        assert instance.area == (y1 - y0) * (x1 - x0)
    assert [instance.category for instance in sample.instances] == [7, 8]


def test_reads_cocos_own_layout(tmp_path: Path) -> None:
    plain = make(tmp_path)
    own = tmp_path / "coco"
    (own / "annotations").mkdir(parents=True)
    shutil.move(plain / "images", own / "val2017")
    shutil.move(plain / "annotations_val.json", own / "annotations" / "instances_val2017.json")

    dataset = open_val(own)

    assert dataset.name == "coco"
    np.testing.assert_array_equal(dataset[2].image, picture(2))
    assert find_coco(own, "train") is None


def test_reads_uncompressed_runs(tmp_path: Path) -> None:
    mask = rectangle(0, 5, 0, 4) | rectangle(20, 24, 30, 32)

    def edit(content: Document) -> None:
        content["annotations"][0]["segmentation"] = uncompressed(mask)

    sample = open_val(make(tmp_path, edit))[0]
    np.testing.assert_array_equal(sample.instances[0].paint(HEIGHT, WIDTH), mask)


@pytest.mark.parametrize(
    "polygon",
    [
        [5, 5, 5, 5, 5, 5],
        [5, 5, 15, 15, 5, 5],
        [5, 5, 15, 15, 14.9, 15],
        [-20, -20, -5, -20, -5, -5, -20, -5],
        [WIDTH + 8, 5, WIDTH + 28, 5, WIDTH + 28, 20, WIDTH + 8, 20],
    ],
    ids=["point", "line", "sliver", "above the image", "beside the image"],
)
def test_a_polygon_that_covers_no_pixel_is_left_out_when_the_split_is_opened(
    tmp_path: Path, polygon: list[float]
) -> None:
    """Found later, it would stop a training in which the image comes up."""

    def edit(content: Document) -> None:
        content["annotations"][0]["segmentation"] = [polygon]

    dataset = open_val(make(tmp_path, edit))
    assert dataset.left_out == 1
    assert sum(len(dataset[index].instances) for index in range(len(dataset))) == 5


def test_leaves_out_crowds_thin_polygons_and_images_without_objects(tmp_path: Path) -> None:
    def edit(content: Document) -> None:
        content["annotations"][0]["segmentation"] = [[5, 5, 5, 5, 5, 5]]
        for annotation in content["annotations"][2:4]:
            annotation["iscrowd"] = 1

    dataset = open_val(make(tmp_path, edit))

    assert [dataset.key(index) for index in range(len(dataset))] == ["a0.png", "a2.png"]
    assert len(dataset[0].instances) == 1
    assert dataset.left_out == 1


def change(place: int, **values: object) -> Callable[[Document], object]:
    return lambda content: content["annotations"][place].update(values)


EMPTY_RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
EMPTY_COMPRESSED = encode(np.zeros((HEIGHT, WIDTH), dtype=bool))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (change(2, segmentation=[]), "Annotation 100 .* has no segmentation"),
        (lambda content: content["annotations"][2].pop("segmentation"), "Annotation 100 .* no seg"),
        (change(2, segmentation=[[1, 2, 3, 4]]), "Annotation 100 .* at least three"),
        (change(2, segmentation=[[1, 2, 3, 4, 5, "6"]]), "Annotation 100 .* coordinate"),
        (change(2, segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "Annotation 100 .* coordinate"),
        (change(2, segmentation=EMPTY_RUNS), "Annotation 100 .* empty mask"),
        (change(2, segmentation=EMPTY_COMPRESSED), "Annotation 100 .* empty mask"),
        (
            change(2, segmentation={"size": [WIDTH, HEIGHT], "counts": [0, HEIGHT * WIDTH]}),
            r"Annotation 100 .* size \[32, 24\].*24 rows by 32 columns",
        ),
        (
            change(2, segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
            "Annotation 100 .* 10 pixels in all",
        ),
        (change(2, segmentation={"size": [HEIGHT, WIDTH]}), "Annotation 100 .* counts"),
        (change(2, bbox=[0, 0, -3, 4]), "Annotation 100 .* bbox"),
        (change(2, bbox="all"), "Annotation 100 .* bbox"),
        (change(2, category_id="cat"), "Annotation 100 .* category_id"),
        (change(2, image_id=99), "Annotation 100 .* image 99"),
        (change(2, id=0), "several annotations with id 0"),
        (change(2, id=None), "image 11 without a usable id"),
        (lambda content: content["annotations"][2].pop("image_id"), "not of COCO's form.*image_id"),
        (lambda content: content.pop("images"), "not of COCO's form.*images"),
        (lambda content: content.update(annotations=[]), "has no annotations"),
        (lambda content: content["images"][1].update(width="32"), "Image 11 .* size 32x24"),
        (lambda content: content["images"][1].update(file_name="../a1.png"), "Image 11 .* inside"),
        (lambda content: content["images"][1].update(id=10), "same id to several images"),
        (
            lambda content: [image.update(file_name="x.png") for image in content["images"][1:]],
            "2 of 3 images .* missing .* x.png",
        ),
    ],
)
def test_refuses_damaged_annotations_when_opened(
    tmp_path: Path, edit: Callable[[Document], object], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        open_val(make(tmp_path, edit))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[]", b"3", b'{"images": 3}'])
def test_refuses_what_is_no_annotation_file(tmp_path: Path, content: bytes) -> None:
    folder = make(tmp_path)
    (folder / "annotations_val.json").write_bytes(content)
    with pytest.raises(DataError, match=r"no JSON|not of COCO's form"):
        open_val(folder)


@pytest.mark.parametrize("counts", ["01", "zzzz", "abc"])
def test_refuses_runs_that_do_not_add_up(tmp_path: Path, counts: str) -> None:
    # pycocotools itself would return uninitialised memory as a mask.
    edit = change(0, segmentation={"size": [HEIGHT, WIDTH], "counts": counts})
    with pytest.raises(DataError, match="Annotation 0 "):
        open_val(make(tmp_path, edit))[0]


def test_refuses_an_image_of_another_size(tmp_path: Path) -> None:
    folder = make(tmp_path)
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(folder / "images" / "a1.png")
    dataset = open_val(folder)
    assert dataset[0].key == "a0.png"
    with pytest.raises(DataError, match=r"a1\.png is 32x25 pixels.*says 32x24"):
        dataset[1]


def test_fingerprint_follows_annotations_images_and_split(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    files = find_coco(folder, "val")
    assert files is not None
    original = open_val(folder).fingerprint

    assert open_val(make(tmp_path / "two")).fingerprint == original
    other_category = make(tmp_path / "three", change(0, category_id=5))
    (folder / "images" / "a0.png").write_bytes((folder / "images" / "a0.png").read_bytes() + b" ")
    others = [
        open_val(folder).fingerprint,
        open_val(other_category).fingerprint,
        CocoDataset(files, split="test").fingerprint,
    ]
    assert len({original, *others}) == 4


def test_cache_gives_the_same_sample_until_its_limit(tmp_path: Path) -> None:
    folder = make(tmp_path)
    roomy, tight = open_val(folder), open_val(folder, cache_bytes=HEIGHT * WIDTH * 3 + 1000)
    assert roomy[0] is roomy[0]
    first = tight[0]
    assert tight[0] is first
    assert tight[1] is tight[1]
    assert tight[0] is not first
    np.testing.assert_array_equal(tight[0].image, first.image)


def test_an_index_past_the_end_is_an_index_error(tmp_path: Path) -> None:
    dataset = open_val(make(tmp_path))
    assert dataset[-1].key == "a2.png"
    with pytest.raises(IndexError):
        dataset[3]
