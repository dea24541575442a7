"""Inputs to time a model with: like a normalised image, and one box as two corner points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hwsearch.runtime.runner import Array, TensorSpec

_BOX_POINTS = 2
_BOX_LABELS = (2, 3)  # Segment Anything's labels of a box's upper left and lower right corner


def encoder_inputs(
    specs: Sequence[TensorSpec], *, batch: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Standard normal values in the shapes of `specs`, an open first dimension being the batch.

    An image that SAM has normalised has about this mean and spread.
    """
    return {
        spec.name: _normal(_shape(spec, first=batch, rest=1), spec.dtype, rng) for spec in specs
    }


def decoder_inputs(
    specs: Sequence[TensorSpec],
    embeddings: Mapping[str, Array],
    *,
    resolution: int,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """The encoder's outputs and one box prompt for each image that the decoder takes at once.

    An input with the name of an encoder output gets that output, of which a decoder for single
    images gets the first. Inputs with `coord` and `label` in their names get the box (pixels of
    the square input, shape (images, 2, 2), and labels, shape (images, 2)). SAM's optional mask
    prompt is left empty, and the original image is as large as the input.
    """
    images = 1
    inputs: dict[str, Array] = {}
    for spec in specs:
        if spec.name in embeddings:
            inputs[spec.name] = embeddings[spec.name][: spec.shape[0]]
            images = len(inputs[spec.name])
    for spec in specs:
        if spec.name not in inputs:
            inputs[spec.name] = _prompt(spec, images, resolution, rng)
    return inputs


def _prompt(spec: TensorSpec, images: int, resolution: int, rng: np.random.Generator) -> Array:
    shape = _shape(spec, first=images, rest=_BOX_POINTS)
    if "label" in spec.name:
        return np.resize(np.array(_BOX_LABELS), shape).astype(spec.dtype)
    if "coord" in spec.name:
        corners = resolution * np.array([[0.25, 0.25], [0.75, 0.75]])
        return np.resize(corners, shape).astype(spec.dtype)
    if "mask" in spec.name:
        return np.zeros(shape, spec.dtype)
    if "size" in spec.name:
        return np.full(shape, resolution, spec.dtype)
    return _normal(shape, spec.dtype, rng)


def _shape(spec: TensorSpec, *, first: int, rest: int) -> tuple[int, ...]:
    return tuple(
        size if size is not None else (rest if place else first)
        for place, size in enumerate(spec.shape)
    )


def _normal(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> Array:
    values: Array = rng.standard_normal(shape).astype(dtype)
    return values
