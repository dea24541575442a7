"""Reader of the COCO instance format."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsearch.data.cache import DEFAULT_CACHE_BYTES, SampleCache
from hwsearch.data.dataset import Sample, Split
from hwsearch.data.images import read_rgb
from hwsearch.data.rle import Segmentation, check_segmentation, is_invisible, to_instance
from hwsearch.errors import DataError
from hwsearch.records import short_digest


@dataclass(frozen=True, slots=True)
class CocoFiles:
    """Where one split lies: its annotation file and the folder of its images."""

    annotations: Path
    images: Path


def find_coco(root: Path, split: Split) -> CocoFiles | None:
    """Look for one split of a folder, in the plain layout and in COCO's own.

    The plain one is `images/` beside `annotations_{split}.json`; COCO's own is
    `annotations/instances_{split}2017.json` and `{split}2017/`, of the latest year there is.
    """
    plain = root / f"annotations_{split}.json"
    if plain.is_file():
        return CocoFiles(annotations=plain, images=root / "images")
    own = sorted((root / "annotations").glob(f"instances_{split}[0-9][0-9][0-9][0-9].json"))
    if own:
        return CocoFiles(annotations=own[-1], images=root / own[-1].stem.removeprefix("instances_"))
    return None


@dataclass(frozen=True, slots=True)
class _Annotation:
    id: int | str
    category: int | None
    segmentation: Segmentation


@dataclass(frozen=True, slots=True)
class _Image:
    file_name: str
    width: int
    height: int
    annotations: tuple[_Annotation, ...]


class CocoDataset:
    """One split of a COCO-format folder; images and masks are read when asked for.

    Annotations and the presence of every image are checked when the split is opened. Images
    without an object are passed over, as are crowd regions and polygons that cover no pixel
    (`left_out` counts these). A sample's key is its file name.

    Args:
        files: The annotation file and the folder of images.
        split: Name of the split.
        cache_bytes: Decoded images and masks that are kept in memory.

    Raises:
        DataError: the annotation file is damaged, an annotation has no mask, images are missing.
    """

    def __init__(
        self, files: CocoFiles, *, split: Split, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        content = _read(files.annotations)
        self.name = files.annotations.parent.name
        if files.images.name != "images":
            self.name = files.annotations.parent.parent.name
        self.split: str = split
        self._folder = files.images
        self._cache = SampleCache(cache_bytes)
        images, self.left_out = _parse(content, files.annotations)
        sizes = _file_sizes(images, files)
        self._images = [image for image in images if image.annotations]
        if not self._images:
            raise DataError(f"{files.annotations} has no object with a mask; add annotations.")
        self.fingerprint = short_digest(f"{split}:{short_digest(content, 64)}:{sizes}")

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        """The image's file name."""
        return self._images[index].file_name

    def __getitem__(self, index: int) -> Sample:
        """Read the sample, or take it from the cache.

        Raises:
            DataError: the image can't be read, has another size than annotated, or a mask is
                damaged.
        """
        index = range(len(self._images))[index]
        sample = self._cache.get(index)
        if sample is None:
            sample = self._read_sample(self._images[index])
            self._cache.put(index, sample)
        return sample

    def _read_sample(self, image: _Image) -> Sample:
        pixels = read_rgb(self._folder / image.file_name, width=image.width, height=image.height)
        instances = tuple(
            to_instance(
                annotation.segmentation,
                height=image.height,
                width=image.width,
                where=f"Annotation {annotation.id} of {image.file_name}",
                category=annotation.category,
            )
            for annotation in image.annotations
        )
        return Sample(key=image.file_name, image=pixels, instances=instances)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"Annotation file {path} can't be read: {error.strerror}.") from error


def _parse(content: bytes, path: Path) -> tuple[list[_Image], int]:
    """The images with their annotations, and how many were left out as they cover no pixel."""
    try:
        document = json.loads(content)
        images, annotations = document["images"], document["annotations"]
        records = {record["id"]: record for record in images}
        by_image: defaultdict[object, list[Any]] = defaultdict(list)
        for annotation in annotations:
            by_image[annotation["image_id"]].append(annotation)
    except ValueError as error:
        raise DataError(f"Annotation file {path} is no JSON ({error}).") from error
    except (KeyError, TypeError) as error:
        raise DataError(
            f"Annotation file {path} is not of COCO's form (it needs `images` with `id`, and "
            f"`annotations` with `image_id`; fault: {error!r})."
        ) from error
    if len(records) != len(images):
        raise DataError(f"{path} gives the same id to several images; ids have to differ.")
    if not annotations:
        raise DataError(f"{path} has no annotations; each split needs objects with masks.")
    _refuse_orphans(by_image, records, path)
    _refuse_repeated_ids(annotations, path)
    parsed = [_parse_image(record, by_image[record["id"]], path) for record in images]
    given = sum(not annotation.get("iscrowd") for annotation in annotations)
    return parsed, given - sum(len(image.annotations) for image in parsed)


def _refuse_orphans(
    by_image: dict[object, list[Any]], records: dict[object, Any], path: Path
) -> None:
    orphans = by_image.keys() - records.keys()
    if orphans:
        annotation = by_image[min(orphans, key=str)][0]
        raise DataError(
            f"Annotation {annotation.get('id')} in {path} belongs to image "
            f"{annotation['image_id']}, which the file doesn't list."
        )


def _refuse_repeated_ids(annotations: list[Any], path: Path) -> None:
    seen: set[object] = set()
    for annotation in annotations:
        if not isinstance(annotation.get("id"), int | str):
            image = annotation["image_id"]
            raise DataError(f"{path} has an annotation of image {image} without a usable id.")
        if annotation["id"] in seen:
            raise DataError(f"{path} has several annotations with id {annotation['id']}.")
        seen.add(annotation["id"])


def _parse_image(record: dict[str, Any], raw: list[dict[str, Any]], path: Path) -> _Image:
    where = f"Image {record['id']} in {path}"
    name, width, height = record.get("file_name"), record.get("width"), record.get("height")
    if not isinstance(name, str) or not _is_inside(name):
        raise DataError(f"{where} has file_name {name!r}; it has to be a path inside the images.")
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        raise DataError(
            f"{where} has size {width}x{height}; both have to be whole numbers above 0."
        )
    parsed = [
        _parse_annotation(annotation, height=height, width=width, path=path)
        for annotation in raw
        if not annotation.get("iscrowd")
    ]
    visible = tuple(
        annotation
        for annotation in parsed
        if not is_invisible(annotation.segmentation, height=height, width=width)
    )
    return _Image(file_name=name, width=width, height=height, annotations=visible)


def _is_inside(name: str) -> bool:
    return bool(name) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _parse_annotation(raw: dict[str, Any], *, height: int, width: int, path: Path) -> _Annotation:
    where = f"Annotation {raw['id']} in {path}"
    box, category = raw.get("bbox"), raw.get("category_id")
    if box is not None and not _is_box(box):
        raise DataError(f"{where} has bbox {box}; it has to be x, y, width, height in pixels.")
    if category is not None and not isinstance(category, int):
        raise DataError(f"{where} has category_id {category!r}; it has to be a whole number.")
    segmentation = check_segmentation(
        raw.get("segmentation"), height=height, width=width, where=where
    )
    return _Annotation(id=raw["id"], category=category, segmentation=segmentation)


def _is_box(box: object) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in box)
    return numbers and min(box[2:]) >= 0


def _file_sizes(images: list[_Image], files: CocoFiles) -> list[int]:
    """Bytes of each image file, so that a replaced image changes the fingerprint."""
    sizes: list[int] = []
    missing: list[str] = []
    for image in images:
        try:
            sizes.append((files.images / image.file_name).stat().st_size)
        except OSError:
            missing.append(image.file_name)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} images that {files.annotations} lists are missing "
            f"in {files.images}, the first is {missing[0]}; restore them or drop their records."
        )
    return sizes
