"""Outlines of objects: closed contours, filled or cut out one after the other.

Shapes are drawn around the origin at a size of about one; `draw` turns, stretches and rasterises
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hwsearch.data.scenes.light import Coverage

Points = NDArray[np.float64]

_SUPERSAMPLING = 4


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """A closed polygon, (n, 2) of x and y: filled, or cut out of what was filled before."""

    points: Points
    filled: bool = True


Outline: TypeAlias = list[Contour]
Shape: TypeAlias = Callable[[np.random.Generator], Outline]


def ellipse(rng: np.random.Generator) -> Outline:
    """An ellipse."""
    return [Contour(_polar(np.ones(72)) * [1, rng.uniform(0.45, 1)])]


def superellipse(rng: np.random.Generator) -> Outline:
    """Something between an ellipse and a rectangle with round corners."""
    angles = _angles(96)
    power = 2 / rng.uniform(2.5, 9)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rounded = np.sign(points) * np.abs(points) ** power
    return [Contour(rounded * [1, rng.uniform(0.35, 1)])]


def blob(rng: np.random.Generator) -> Outline:
    """A smooth blob: a circle whose radius has a few random Fourier terms."""
    angles = _angles(120)
    radius = np.ones_like(angles)
    roughness = rng.uniform(0.15, 0.45)
    for order in range(2, 8):
        amplitude = roughness * rng.normal() / order
        radius += amplitude * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    return [Contour(_polar(radius.clip(min=0.2)) * [1, rng.uniform(0.5, 1)])]


def polygon(rng: np.random.Generator) -> Outline:
    """An irregular polygon of three to nine corners."""
    corners = int(rng.integers(3, 10))
    turns = np.arange(corners) + rng.uniform(-0.35, 0.35, corners)
    angles = 2 * np.pi * turns / corners
    radius = rng.uniform(0.65, 1, corners)
    return [Contour(np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1))]


def star(rng: np.random.Generator) -> Outline:
    """A star, or a gear if its points are blunt."""
    points, blunt = int(rng.integers(4, 10)), int(rng.integers(1, 4))
    inner = rng.uniform(0.35, 0.75)
    radius = np.tile(np.repeat([1.0, inner], blunt), points)
    return [Contour(_polar(radius))]


def leaf(rng: np.random.Generator) -> Outline:
    """A leaf: two arcs that meet in two tips."""
    x = np.linspace(-1, 1, 40)
    bulge = rng.uniform(0.2, 0.55)
    bend = rng.uniform(-0.4, 0.4) * (1 - x**2)
    skew = 1 + rng.uniform(-0.4, 0.4) * x
    arc = bulge * (1 - x**2) * skew
    upper, lower = np.stack([x, bend + arc], axis=1), np.stack([x, bend - arc], axis=1)
    return [Contour(np.concatenate([upper, lower[::-1]]))]


def stroke(rng: np.random.Generator) -> Outline:
    """A thin, curved thing: a thick line that wanders and may taper."""
    steps = 28
    turn = np.cumsum(rng.normal(0, 0.16, steps)) + np.linspace(0, rng.uniform(-3, 3), steps)
    path = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1), axis=0) / steps * 2.2
    path -= path.mean(axis=0)
    width = rng.uniform(0.05, 0.16) * np.linspace(1, rng.uniform(0.35, 1), steps)
    return _thick_line(path, width)


def crescent(rng: np.random.Generator) -> Outline:
    """An ellipse from which another one takes a bite."""
    body = _polar(np.ones(72)) * [1, rng.uniform(0.7, 1)]
    bite = _polar(np.ones(72)) * rng.uniform(0.55, 0.85) + [rng.uniform(0.45, 0.8), 0]
    return [Contour(body), Contour(bite, filled=False)]


def pierced(rng: np.random.Generator) -> Outline:
    """A blob, ellipse or rounded box with one to three holes."""
    body = _PLAIN[int(rng.integers(len(_PLAIN)))](rng)
    holes = int(rng.integers(1, 4))
    if holes == 1:
        hole = body[0].points * rng.uniform(0.35, 0.75)
        return [*body, Contour(hole, filled=False)]
    angles = rng.uniform(0, 2 * np.pi) + np.arange(holes) * 2 * np.pi / holes
    for angle in angles:
        centre = 0.45 * np.array([np.cos(angle), np.sin(angle)])
        size = rng.uniform(0.14, 0.26)
        body.append(Contour(_polar(np.ones(32)) * size + centre, filled=False))
    return body


def limbed(rng: np.random.Generator) -> Outline:
    """A body with thin limbs, somewhat like an animal or a plant."""
    body = [Contour(blob(rng)[0].points * 0.55)]
    limbs = int(rng.integers(2, 6))
    for angle in rng.uniform(0, 2 * np.pi, limbs):
        reach = np.linspace(0.2, rng.uniform(0.8, 1.2), 12)
        bent = angle + rng.uniform(-0.9, 0.9) * (reach - 0.2)
        path = np.stack([reach * np.cos(bent), reach * np.sin(bent)], axis=1)
        width = np.linspace(rng.uniform(0.08, 0.16), rng.uniform(0.03, 0.09), 12)
        body += _thick_line(path, width)
    return body


def union(rng: np.random.Generator) -> Outline:
    """Two or three overlapping shapes that make one object."""
    parts = [_PLAIN[int(rng.integers(len(_PLAIN)))](rng)]
    for _ in range(int(rng.integers(1, 3))):
        offset = rng.uniform(-0.8, 0.8, 2)
        size = rng.uniform(0.4, 0.8)
        part = _PLAIN[int(rng.integers(len(_PLAIN)))](rng)
        parts.append([Contour(contour.points * size + offset) for contour in part])
    return [contour for part in parts for contour in part]


_PLAIN: tuple[Shape, ...] = (ellipse, superellipse, blob, polygon)

# Plain shapes come twice, since most things have no holes.
SHAPES: tuple[Shape, ...] = (
    *_PLAIN,
    *_PLAIN,
    blob,
    star,
    leaf,
    stroke,
    crescent,
    pierced,
    limbed,
    limbed,
    union,
    union,
)


def draw(shape: Shape, rng: np.random.Generator, long_side: float) -> Coverage:
    """Rasterise a shape, turned at random, as large as asked.

    Args:
        shape: One of `SHAPES`.
        rng: Source of the shape and the turn.
        long_side: Longer side of the bounding box in pixels, before anything is cut out.

    Returns:
        float32 (h, w) in [0, 1]: the share of each pixel that the shape covers.
    """
    outline = shape(rng)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = [Contour(contour.points @ turn, contour.filled) for contour in outline]
    filled = np.concatenate([contour.points for contour in turned if contour.filled])
    low, extent = filled.min(axis=0), np.ptp(filled, axis=0)
    scale = long_side / extent.max()
    width, height = (int(side) for side in np.ceil(extent * scale).clip(min=1))
    canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for contour in turned:
        # Pillow's polygons include their border; half a subpixel keeps the area right.
        corners = (contour.points - low) * scale * _SUPERSAMPLING - 0.5
        pen.polygon([(x, y) for x, y in corners.tolist()], fill=255 if contour.filled else 0)
    # What was cut out may have left empty rows or columns at the border.
    tight = canvas.reduce(_SUPERSAMPLING)
    return np.asarray(tight.crop(tight.getbbox()), dtype=np.float32) / np.float32(255)


def _angles(count: int) -> Points:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def _polar(radius: Points) -> Points:
    angles = _angles(len(radius))
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _thick_line(path: Points, half_width: Points) -> Outline:
    """Discs along a path and the pieces between them; a single polygon would cross itself."""
    disc = _polar(np.ones(16))
    pieces = [
        Contour(centre + disc * radius) for centre, radius in zip(path, half_width, strict=True)
    ]
    direction = np.diff(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    before, after = normal * half_width[:-1, None], normal * half_width[1:, None]
    corners = np.stack([path[:-1] + before, path[1:] + after, path[1:] - after, path[:-1] - before])
    return pieces + [Contour(quad) for quad in corners.transpose(1, 0, 2)]
