"""Compose one scene: objects cut from photographs by outlines, laid over another photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsearch.data.dataset import Instance, Pixels
from hwsearch.data.scenes import light
from hwsearch.data.scenes.light import Colours, Coverage
from hwsearch.data.scenes.outlines import SHAPES, Shape, draw
from hwsearch.data.scenes.patches import cut_patch, log_uniform

# An object stays in the ground truth if this share of it, and so many pixels, can be seen.
MIN_VISIBLE_SHARE = 0.35
MIN_VISIBLE_PIXELS = 48

_OBJECTS = (2, 7)
_SIDE_SHARE = (0.12, 0.65)
_BACKGROUND_ZOOM = (0.5, 2.5)
_OBJECT_ZOOM = (0.35, 2.0)


@dataclass(frozen=True, slots=True)
class _Style:
    """What the objects of a scene have in common; None where each has its own."""

    shape: Shape | None
    photograph: str | None
    side_share: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Cutout:
    """An outline in its place: `x`, `y` is its top left corner, which may be out of the frame."""

    coverage: Coverage
    x: int
    y: int

    def within(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the frame that it reaches."""
        h, w = self.coverage.shape
        rows = slice(min(max(self.y, 0), height), max(min(self.y + h, height), 0))
        columns = slice(min(max(self.x, 0), width), max(min(self.x + w, width), 0))
        return rows, columns

    def part(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The same rows and columns, counted from its own corner."""
        return (
            slice(rows.start - self.y, rows.stop - self.y),
            slice(columns.start - self.x, columns.stop - self.x),
        )


def compose(
    photographs: tuple[str, ...], rng: np.random.Generator, height: int, width: int
) -> tuple[Pixels, tuple[Instance, ...]]:
    """An image, uint8 RGB (height, width, 3), and the visible part of each object in it.

    A pixel belongs to the topmost object that covers at least half of it. Blur, noise and
    compression are applied to the image alone. Objects that are mostly hidden stay in the image,
    but not among the instances.

    Args:
        photographs: Names to cut from; at least two.
        rng: Everything is drawn from it.
        height: Rows of the image.
        width: Columns of the image.
    """
    while True:
        canvas, instances = _attempt(photographs, rng, height, width)
        if instances:
            return light.degrade(canvas, rng), instances


def _attempt(
    photographs: tuple[str, ...], rng: np.random.Generator, height: int, width: int
) -> tuple[Colours, tuple[Instance, ...]]:
    ground, *others = (photographs[place] for place in rng.permutation(len(photographs)))
    canvas = _background(ground, others[-1], rng, height, width)
    owner = np.zeros((height, width), dtype=np.uint8)
    style = _draw_style(others, rng)
    whole_areas: list[int] = []
    for number in range(1, int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1)) + 1):
        cutout = _draw_cutout(style, rng, height, width)
        name = style.photograph or others[int(rng.integers(len(others)))]
        _cast_shadow(canvas, cutout, rng)
        _lay(canvas, cutout, name, rng)
        rows, columns = cutout.within(height, width)
        opaque = cutout.coverage >= 0.5
        owner[rows, columns][opaque[cutout.part(rows, columns)]] = number
        whole_areas.append(int(np.count_nonzero(opaque)))
    return canvas, _visible(owner, whole_areas)


def _draw_style(names: list[str], rng: np.random.Generator) -> _Style:
    """Now and then a scene of like things, as coins or cells are; mostly a scene of all sorts."""
    if rng.random() >= 0.25:
        return _Style(shape=None, photograph=None, side_share=_SIDE_SHARE)
    middle = log_uniform(rng, (0.15, 0.35))
    return _Style(
        shape=SHAPES[int(rng.integers(len(SHAPES)))],
        photograph=names[0],
        side_share=(middle * 0.75, middle * 1.3),
    )


def _background(
    first: str, second: str, rng: np.random.Generator, height: int, width: int
) -> Colours:
    canvas = cut_patch(first, rng, height, width, zoom=_BACKGROUND_ZOOM)
    if rng.random() < 0.2:
        # A second ground behind a straight edge, which is no object.
        other = cut_patch(second, rng, height, width, zoom=_BACKGROUND_ZOOM)
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
        x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
        beyond = x[None, :] * np.cos(angle) + y[:, None] * np.sin(angle) > offset
        canvas = np.where(beyond[..., None], other, canvas)
    if rng.random() < 0.4:
        canvas = light.blurred(canvas, rng.uniform(0.8, 5))
    if rng.random() < 0.5:
        canvas = light.flattened(canvas, rng.uniform(0.2, 0.8))
    return light.shade(canvas, rng, rng.uniform(0, 0.35))


def _draw_cutout(style: _Style, rng: np.random.Generator, height: int, width: int) -> _Cutout:
    """An outline in its place; one in six may stick out of the frame by a quarter of its size."""
    shape = style.shape or SHAPES[int(rng.integers(len(SHAPES)))]
    coverage = draw(shape, rng, log_uniform(rng, style.side_share) * min(height, width))
    h, w = coverage.shape
    out = 0.25 if rng.random() < 1 / 6 else 0.0
    x = rng.integers(-int(w * out), max(width - int(w * (1 - out)), 0) + 1)
    y = rng.integers(-int(h * out), max(height - int(h * (1 - out)), 0) + 1)
    return _Cutout(coverage=coverage, x=int(x), y=int(y))


def _cast_shadow(canvas: Colours, cutout: _Cutout, rng: np.random.Generator) -> None:
    """A third of the objects cast a soft one, a few pixels off."""
    if rng.random() >= 1 / 3:
        return
    radius = rng.uniform(1, 5)
    margin = int(3 * radius)
    shift_x, shift_y = (int(shift) for shift in rng.integers(-5, 6, 2))
    shadow = _Cutout(
        coverage=light.shadow(cutout.coverage, radius, margin),
        x=cutout.x + shift_x - margin,
        y=cutout.y + shift_y - margin,
    )
    rows, columns = shadow.within(*canvas.shape[:2])
    depth = np.float32(rng.uniform(0.2, 0.6)) * shadow.coverage[shadow.part(rows, columns)]
    canvas[rows, columns] *= (1 - depth)[..., None]


def _lay(canvas: Colours, cutout: _Cutout, name: str, rng: np.random.Generator) -> None:
    """Lay an object, cut from a photograph, over the canvas."""
    coverage = cutout.coverage
    colours = cut_patch(name, rng, *coverage.shape, zoom=_OBJECT_ZOOM)
    if rng.random() < 0.6:
        colours = light.flattened(colours, rng.uniform(0.25, 0.9))
    if rng.random() < 0.35:
        colours = light.rounded(colours, coverage, rng.uniform(0.3, 0.7))
    rows, columns = cutout.within(*canvas.shape[:2])
    inside = cutout.part(rows, columns)
    seen, ground = coverage[inside], canvas[rows, columns]
    colours = _set_apart(colours[inside], ground, seen, rng)
    colours = light.shade(colours, rng, rng.uniform(0, 0.4))
    ground += seen[..., None] * (colours.clip(0, 255) - ground)


def _set_apart(
    colours: Colours, ground: Colours, seen: Coverage, rng: np.random.Generator
) -> Colours:
    """Move the object's mean colour away from the ground's, unless they differ enough.

    How much is enough is drawn anew for each object, so that some are hard to tell apart.
    """
    mean = light.mean_colour(colours, seen)
    difference = mean - light.mean_colour(ground, seen)
    lacking = rng.uniform(15, 130) - float(np.linalg.norm(difference))
    direction = difference + rng.normal(0, 20, 3) + (25 if rng.random() < 0.5 else -25)
    if lacking <= 0:
        return colours
    direction *= lacking / max(float(np.linalg.norm(direction)), 1e-6)
    # The other way where the scale would end: clipping would undo the move.
    beyond = np.abs(mean + direction - 127.5) > 117.5
    return colours + np.where(beyond, -direction, direction).astype(np.float32)


def _visible(owner: Pixels, whole_areas: list[int]) -> tuple[Instance, ...]:
    instances: list[Instance] = []
    for number, whole in enumerate(whole_areas, start=1):
        mask = owner == number
        if np.count_nonzero(mask) >= max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * whole):
            instances.append(Instance.from_mask(mask))
    return tuple(instances)
