"""Reader of SA-1B's folders: `sa_N.jpg` beside `sa_N.json`."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsearch.data.cache import DEFAULT_CACHE_BYTES, SampleCache
from hwsearch.data.dataset import Instance, Sample, Split
from hwsearch.data.images import read_rgb
from hwsearch.data.rle import check_segmentation, to_instance
from hwsearch.errors import DataError
from hwsearch.records import short_digest


@dataclass(frozen=True, slots=True)
class _Entry:
    stem: str
    image_bytes: int
    annotation_bytes: int


def split_of(stem: str) -> Split:
    """The split of `sa_N`: the SHA-1 of the name modulo 10 is 8 for val, 9 for test, else train."""
    bucket = int(hashlib.sha1(stem.encode(), usedforsecurity=False).hexdigest(), 16) % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


def is_sa1b(root: Path) -> bool:
    """Whether a folder holds an `sa_N.json`."""
    with os.scandir(root) as entries:
        return any(_is_annotation(entry.name) for entry in entries)


def has_sa1b_split(root: Path, split: Split) -> bool:
    """Whether a folder holds an `sa_N.json` whose name belongs to the split."""
    with os.scandir(root) as entries:
        return any(
            _is_annotation(entry.name) and split_of(Path(entry.name).stem) == split
            for entry in entries
        )


class Sa1bDataset:
    """One split of an SA-1B folder, 80 % train, 10 % val, 10 % test by a hash of the file name.

    Opening lists the folder and checks that images and annotations come in pairs; a file's
    content is read when its sample is asked for, since the whole set has eleven million of them.
    A sample's key is its file name without the suffix.

    Args:
        root: The folder.
        split: `train`, `val` or `test`.
        cache_bytes: Decoded images and masks that are kept in memory.

    Raises:
        DataError: the folder can't be listed, has an unpaired file, or nothing of this split.
    """

    def __init__(self, root: Path, *, split: Split, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.name = root.name
        self.split: str = split
        self._root = root
        self._cache = SampleCache(cache_bytes)
        entries = [entry for entry in _list(root) if split_of(entry.stem) == split]
        if not entries:
            raise DataError(
                f"None of the names in {root} hashes to split {split!r}; add more images."
            )
        self._stems = [entry.stem for entry in entries]
        self.fingerprint = short_digest(f"sa1b:{split}:{entries}")

    def __len__(self) -> int:
        return len(self._stems)

    def key(self, index: int) -> str:
        """The file name without its suffix."""
        return self._stems[index]

    def __getitem__(self, index: int) -> Sample:
        """Read the sample, or take it from the cache.

        Raises:
            DataError: the image or the annotations are damaged, or don't fit each other.
        """
        index = range(len(self._stems))[index]
        sample = self._cache.get(index)
        if sample is None:
            sample = self._read_sample(self._stems[index])
            self._cache.put(index, sample)
        return sample

    def _read_sample(self, stem: str) -> Sample:
        path = self._root / f"{stem}.json"
        try:
            document = json.loads(path.read_bytes())
            width, height = document["image"]["width"], document["image"]["height"]
            instances = tuple(
                _instance(annotation, height=height, width=width, path=path)
                for annotation in document["annotations"]
            )
        except OSError as error:
            raise DataError(f"Annotation file {path} can't be read: {error.strerror}.") from error
        except ValueError as error:
            raise DataError(f"Annotation file {path} is no JSON ({error}).") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Annotation file {path} is not of SA-1B's form (it needs `image` with `width` and "
                f"`height`, and `annotations`; fault: {error!r})."
            ) from error
        if not instances:
            raise DataError(f"Annotation file {path} has no masks; remove it with its image.")
        image = read_rgb(self._root / f"{stem}.jpg", width=width, height=height)
        return Sample(key=stem, image=image, instances=instances)


def _instance(annotation: dict[str, Any], *, height: int, width: int, path: Path) -> Instance:
    where = f"Annotation {annotation.get('id')} in {path}"
    segmentation = check_segmentation(
        annotation.get("segmentation"), height=height, width=width, where=where
    )
    return to_instance(segmentation, height=height, width=width, where=where)


def _is_annotation(name: str) -> bool:
    return name.startswith("sa_") and name.endswith(".json")


def _list(root: Path) -> list[_Entry]:
    """All pairs, in the order of their names."""
    sizes: dict[str, dict[str, int]] = {".json": {}, ".jpg": {}}
    try:
        with os.scandir(root) as files:
            for file in files:
                stem, suffix = os.path.splitext(file.name)  # noqa: PTH122 - millions of names
                if stem.startswith("sa_") and suffix in sizes:
                    sizes[suffix][stem] = file.stat().st_size
    except OSError as error:
        raise DataError(f"Data folder {root} can't be listed: {error.strerror}.") from error
    annotations, images = sizes[".json"], sizes[".jpg"]
    unpaired = sorted(annotations.keys() ^ images.keys())
    if unpaired:
        lacking = ".json" if unpaired[0] in images else ".jpg"
        raise DataError(
            f"{len(unpaired)} files in {root} lack their other half, the first is {unpaired[0]} "
            f"without {lacking}; restore it or remove the file."
        )
    return [_Entry(stem, images[stem], annotations[stem]) for stem in sorted(annotations)]
