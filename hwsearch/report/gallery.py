"""Pictures embedded in the page, so that it stays one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from hwsearch.errors import DataError

SIDE = 720  # pixels; larger pictures are shrunk, so that the page stays small
LIMIT = 24


def gallery(overlays: Sequence[Path]) -> str:
    """The first pictures as HTML figures; file names become captions.

    Raises:
        DataError: a picture can't be read.
    """
    pictures = "".join(
        f'<figure><img alt="Masks of the pick on {escape(path.stem)}" src="{_data_url(path)}">'
        f"<figcaption>{escape(path.stem)}</figcaption></figure>"
        for path in overlays[:LIMIT]
    )
    left_out = len(overlays) - LIMIT
    note = f'<p class="note">{left_out} more are not shown.</p>' if left_out > 0 else ""
    return f'<div class="gallery">{pictures}</div>{note}'


def _data_url(path: Path) -> str:
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except OSError:
        raise DataError(f"Overlay {path} can't be read: give a PNG or JPEG picture.") from None
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
