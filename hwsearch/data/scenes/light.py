"""Light on a patch, and what a camera does to a picture.

Colours are float32 (h, w, 3) in 0–255 and may pass these bounds until they become pixels.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from hwsearch.data.dataset import Pixels

Colours = NDArray[np.float32]
Coverage = NDArray[np.float32]


def mean_colour(colours: Colours, weight: Coverage | None = None) -> Colours:
    """The mean colour, float32 (3,), weighted by a float32 (h, w) if given."""
    flat = colours.reshape(-1, 3)
    # A product of matrices is several times as fast here as a mean over two axes.
    weights = np.ones(len(flat), dtype=np.float32) if weight is None else weight.ravel()
    mean: Colours = (weights @ flat) / max(float(weights.sum()), 1e-6)
    return mean.astype(np.float32)


def flattened(colours: Colours, keep: float) -> Colours:
    """Keep a share of the texture, and move the rest to the mean colour."""
    return colours * np.float32(keep) + mean_colour(colours) * np.float32(1 - keep)


def shade(colours: Colours, rng: np.random.Generator, strength: float) -> Colours:
    """Light that falls from one side: brightness changes linearly by ±`strength` over the patch."""
    height, width = colours.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(np.sin(angle))
    light = 1 + np.float32(strength / np.sqrt(2)) * (x[None, :] + y[:, None])
    return colours * light[..., None]


def rounded(colours: Colours, coverage: Coverage, strength: float) -> Colours:
    """Darker towards the outline by up to `strength`, as round things are."""
    depth = _soft(coverage, 0.12 * max(coverage.shape))
    return colours * (1 - np.float32(strength) * (1 - depth))[..., None]


def shadow(coverage: Coverage, radius: float, margin: int) -> Coverage:
    """A soft copy of an object's coverage, with `margin` pixels more on each side."""
    return _soft(np.pad(coverage, margin), radius)


def blurred(colours: Colours, radius: float) -> Colours:
    """Out of focus: each pixel becomes the mean of a square of side 2 `radius` + 1."""
    soft = Image.fromarray(to_pixels(colours)).filter(ImageFilter.BoxBlur(radius))
    return np.asarray(soft, dtype=np.float32)


def degrade(colours: Colours, rng: np.random.Generator) -> Pixels:
    """Exposure, blur, noise and compression, each now and then."""
    if rng.random() < 0.7:
        contrast, gain = np.float32(rng.uniform(0.7, 1.2)), np.float32(rng.uniform(0.75, 1.25))
        colours = colours * contrast + 128 * (gain - contrast)
    if rng.random() < 0.4:
        colours = blurred(colours, rng.uniform(0.3, 1.1))
    if rng.random() < 0.5:
        channels = 1 if rng.random() < 0.5 else 3
        noise = rng.standard_normal((*colours.shape[:2], channels), dtype=np.float32)
        colours = colours + noise * np.float32(rng.uniform(1, 12))
    image = to_pixels(colours)
    if rng.random() < 0.4:
        return _compressed(image, quality=int(rng.integers(40, 95)))
    return image


def to_pixels(colours: Colours) -> Pixels:
    """Round to uint8."""
    return (colours + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _compressed(image: Pixels, *, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.array(decoded)


def _soft(coverage: Coverage, radius: float) -> Coverage:
    cover = Image.fromarray((coverage * 255).astype(np.uint8))
    return np.asarray(cover.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) / np.float32(255)
