"""Open a data set by its folder or its name."""

from __future__ import annotations

from pathlib import Path

from hwsearch.data.cache import DEFAULT_CACHE_BYTES
from hwsearch.data.coco import CocoDataset, find_coco
from hwsearch.data.dataset import SPLITS, Dataset, Split
from hwsearch.data.sa1b import Sa1bDataset, has_sa1b_split, is_sa1b
from hwsearch.data.scenes.dataset import DEFAULT_COUNTS, SceneDataset
from hwsearch.errors import DataError, UsageError

SCENES = "scenes"
LAYOUTS = (
    "images/ with annotations_{train,val,test}.json, or "
    "annotations/instances_{train,val,test}2017.json with {train,val,test}2017/, or "
    "sa_N.jpg with sa_N.json (SA-1B)"
)


def open_dataset(
    source: str | Path, split: Split, *, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> Dataset:
    """Open one split of a data folder, recognised by its layout, or of the embedded scenes.

    Args:
        source: A folder, or `scenes`; a folder of that name is reached as `./scenes`.
        split: `train`, `val` or `test`.
        cache_bytes: Decoded images and masks that are kept in memory.

    Raises:
        UsageError: there is no such split.
        DataError: there is no such folder, it has no known layout, it lacks the split, or its
            content is damaged.
    """
    _check_split(split)
    if source == SCENES:
        return SceneDataset(split, DEFAULT_COUNTS[split], cache_bytes=cache_bytes)
    root = _folder(source)
    files = find_coco(root, split)
    if files is not None:
        return CocoDataset(files, split=split, cache_bytes=cache_bytes)
    if is_sa1b(root):
        return Sa1bDataset(root, split=split, cache_bytes=cache_bytes)
    raise DataError(_why_not(root, split))


def has_split(source: str | Path, split: Split) -> bool:
    """Whether `open_dataset` would find this split; nothing but file names is looked at.

    Raises:
        UsageError: there is no such split.
        DataError: there is no such folder.
    """
    _check_split(split)
    if source == SCENES:
        return True
    root = _folder(source)
    return find_coco(root, split) is not None or has_sa1b_split(root, split)


def _check_split(split: Split) -> None:
    if split not in SPLITS:
        raise UsageError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")


def _folder(source: str | Path) -> Path:
    # Resolved, so that `.` too gives the data set a name.
    root = Path(source).resolve()
    if not root.is_dir():
        raise DataError(
            f"Data source {str(source)!r} is no folder; give `{SCENES}`, or a folder that holds "
            f"{LAYOUTS}."
        )
    return root


def _why_not(root: Path, split: Split) -> str:
    there = [other for other in SPLITS if find_coco(root, other) is not None]
    if there:
        return f"Data folder {root} has no split {split!r}, only {', '.join(there)}."
    return f"Data folder {root} has no layout that is understood; it has to hold {LAYOUTS}."
