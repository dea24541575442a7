"""`hwsearch predict`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.options import JsonOption, ThreadsOption, parse_list, print_result
from hwsearch.errors import DataError, UsageError


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    image: Annotated[Path, typer.Argument(help="An image file.")],
    *,
    box: Annotated[list[str], typer.Option(help="x0,y0,x1,y1 in pixels; repeat it.")],
    out: Annotated[Path, typer.Option(help="The overlay to write (.png).")],
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment what boxes enclose, and draw the masks.

    [bold]Example:[/bold] hwsearch predict bundle cat.jpg --box 40,20,310,280 --out cat-masks.png
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    from hwsearch.export.load import load_bundle
    from hwsearch.report.overlay import draw_overlay
    from hwsearch.workflow.showcase import best_masks, write_png

    boxes = np.array([_box(text) for text in box], dtype=np.float32)
    try:
        with Image.open(image) as file:
            pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"There is no image {image}.") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise DataError(f"{image} is no image that Pillow can read.") from None
    with load_bundle(bundle, threads=threads) as loaded:
        masks, ious = best_masks(loaded, pixels, boxes)
    write_png(out, draw_overlay(pixels, masks, boxes))
    print_result(
        {
            "out": str(out),
            "masks": [
                {"area": int(mask.sum()), "predicted_iou": float(iou)}
                for mask, iou in zip(masks, ious, strict=True)
            ],
        },
        as_json=as_json,
        lines=[
            f"box {text}: {int(mask.sum())} pixels, predicted IoU {iou:.2f}"
            for text, mask, iou in zip(box, masks, ious, strict=True)
        ]
        + [f"Wrote {out}."],
    )


def _box(text: str) -> tuple[float, ...]:
    numbers = parse_list(text, float, "box")
    if (
        len(numbers) != 4
        or not all(map(math.isfinite, numbers))
        or numbers[0] >= numbers[2]
        or numbers[1] >= numbers[3]
    ):
        raise UsageError(f"{text!r} is no box: give x0,y0,x1,y1 with x0 < x1 and y0 < y1.")
    return numbers
