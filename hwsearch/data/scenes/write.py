"""Write scenes as a COCO-format folder."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from hwsearch.data.dataset import Pixels, Sample, Split
from hwsearch.data.rle import encode
from hwsearch.data.scenes.dataset import DEFAULT_COUNTS, DEFAULT_SIZE, RECIPE_VERSION, SceneDataset
from hwsearch.data.scenes.photographs import names
from hwsearch.errors import DataError, UsageError
from hwsearch.files import replace_file
from hwsearch.progress import Advance, Progress, SilentProgress

MARKER = "scenes.json"
_CATEGORY = {"id": 1, "name": "object"}


def write_scenes(
    out: Path,
    *,
    counts: Mapping[Split, int] = DEFAULT_COUNTS,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    progress: Progress | None = None,
) -> None:
    """Write `images/*.png` and one `annotations_{split}.json` a split; masks as compressed RLE.

    The images and masks equal those of `SceneDataset` with the same arguments. A second run with
    the same arguments writes the same bytes; `scenes.json` keeps the arguments. Each file is
    complete or absent.

    Args:
        out: A folder that is new, empty, or was written with the same arguments.
        counts: Scenes a split.
        seed: Seed of the scenes.
        size: Least and greatest side of a scene in pixels.
        progress: Told of each scene.

    Raises:
        UsageError: an argument is out of range.
        DataError: the folder holds something else, or can't be written.
    """
    if not counts:
        raise UsageError("No split is named; give a number of scenes for train, val or test.")
    datasets = [
        SceneDataset(split, count, size=size, seed=seed, cache_bytes=0)
        for split, count in counts.items()
    ]
    shown = progress or SilentProgress()
    try:
        _claim(out, _marker(counts, seed=seed, size=size))
        with shown.task("Composing scenes", sum(counts.values())) as advance:
            for dataset in datasets:
                _write_split(out, dataset, advance)
    except OSError as error:
        raise DataError(f"Scenes can't be written to {out}: {error.strerror or error}.") from error


def _marker(counts: Mapping[Split, int], *, seed: int, size: tuple[int, int]) -> bytes:
    """What the folder's content depends on."""
    arguments = {
        "recipe_version": RECIPE_VERSION,
        "counts": {split: counts[split] for split in sorted(counts)},
        "seed": seed,
        "size": size,
        "photographs": {split: names(split) for split in sorted(counts)},
    }
    return json.dumps(arguments, indent=2).encode() + b"\n"


def _claim(out: Path, marker: bytes) -> None:
    """Make the folder ours, unless it is somebody else's."""
    out.mkdir(parents=True, exist_ok=True)
    place = out / MARKER
    if place.is_file():
        if place.read_bytes() != marker:
            raise DataError(
                f"Folder {out} holds scenes made with other arguments (see {MARKER} in it); "
                "choose another folder or delete this one."
            )
    elif any(out.iterdir()):
        raise DataError(
            f"Folder {out} is not empty and holds no scenes of hwsearch; choose a new folder."
        )
    _write(place, marker)
    (out / "images").mkdir(exist_ok=True)


def _write_split(out: Path, dataset: SceneDataset, advance: Advance) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(len(dataset)):
        sample = dataset[number]
        height, width = sample.image.shape[:2]
        file_name = f"{sample.key}.png"
        _write(out / "images" / file_name, _to_png(sample.image))
        images.append({"id": number + 1, "file_name": file_name, "width": width, "height": height})
        annotations += _annotations(sample, image_id=number + 1, first_id=len(annotations) + 1)
        advance(note=file_name)
    document = {
        "info": {"description": f"Scenes composed by hwsearch, split {dataset.split}"},
        "categories": [_CATEGORY],
        "images": images,
        "annotations": annotations,
    }
    _write(out / f"annotations_{dataset.split}.json", json.dumps(document).encode())


def _annotations(sample: Sample, *, image_id: int, first_id: int) -> list[dict[str, Any]]:
    height, width = sample.image.shape[:2]
    return [
        {
            "id": first_id + place,
            "image_id": image_id,
            "category_id": _CATEGORY["id"],
            "bbox": [instance.x, instance.y, instance.width, instance.height],
            "area": instance.area,
            "iscrowd": 0,
            "segmentation": encode(instance.paint(height, width)),
        }
        for place, instance in enumerate(sample.instances)
    ]


def _to_png(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with replace_file(path) as temporary:
        temporary.write_bytes(content)
