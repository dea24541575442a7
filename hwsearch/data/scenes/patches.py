"""Patches cut from photographs at random places, scales and turns."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from hwsearch.data.scenes.light import Colours
from hwsearch.data.scenes.photographs import untouched

# Photographs without colours of their own are tinted more often.
_TINT_CHANCE_GREY, _TINT_CHANCE_COLOUR = 0.75, 0.15


def cut_patch(
    name: str, rng: np.random.Generator, height: int, width: int, *, zoom: tuple[float, float]
) -> Colours:
    """A patch of a photograph: float32 (height, width, 3) in 0–255.

    Args:
        name: The photograph.
        rng: Draws place, scale, turn and tint.
        height: Rows of the patch.
        width: Columns of the patch.
        zoom: Least and most pixels of the photograph a pixel of the patch; less where the
            photograph is too small.
    """
    levels = _pyramid(name)
    source_width, source_height = levels[0].size
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else 0.0
    cosine, sine = np.cos(angle), np.sin(angle)
    # Half extents of the turned patch, in its own pixels.
    reach_x = (abs(width * cosine) + abs(height * sine)) / 2
    reach_y = (abs(width * sine) + abs(height * cosine)) / 2
    most = min(source_width / reach_x, source_height / reach_y) / 2 * 0.98
    step = min(log_uniform(rng, zoom), most)
    centre_x = rng.uniform(reach_x * step, source_width - reach_x * step)
    centre_y = rng.uniform(reach_y * step, source_height - reach_y * step)
    level = int(np.clip(np.floor(np.log2(max(step, 1))), 0, len(levels) - 1))
    shrink = 0.5**level
    flip = -1.0 if rng.random() < 0.5 else 1.0
    a, b = flip * step * cosine * shrink, -step * sine * shrink
    d, e = flip * step * sine * shrink, step * cosine * shrink
    # Pillow maps the centre of output pixel (x, y) to (a x + b y + c, d x + e y + f).
    c = centre_x * shrink - a * width / 2 - b * height / 2
    f = centre_y * shrink - d * width / 2 - e * height / 2
    patch = levels[level].transform(
        (width, height),
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        resample=Image.Resampling.BILINEAR,
    )
    return _tinted(np.asarray(patch, dtype=np.float32), rng, is_grey=_is_grey(name))


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """A number whose logarithm is uniform between the bounds' logarithms."""
    return float(np.exp(rng.uniform(*np.log(bounds))))


@cache
def _pyramid(name: str) -> tuple[Image.Image, ...]:
    """The photograph, and copies at a half, a quarter … of its size, down to 64 pixels."""
    levels = [Image.fromarray(untouched(name))]
    while min(levels[-1].size) >= 128:
        levels.append(levels[-1].reduce(2))
    return tuple(levels)


@cache
def _is_grey(name: str) -> bool:
    pixels = untouched(name)
    return bool((pixels == pixels[..., :1]).all())


def _tinted(colours: Colours, rng: np.random.Generator, *, is_grey: bool) -> Colours:
    if rng.random() >= (_TINT_CHANCE_GREY if is_grey else _TINT_CHANCE_COLOUR):
        return colours
    tint = rng.uniform(0.6, 1.3, 3).astype(np.float32)
    return colours * tint
