"""Prompts from ground truth, as SamPredictor would hand them to the prompt encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwsearch.data.framing import FittedView
from hwsearch.data.prompts import interior_point

Prompt: TypeAlias = Literal["box", "point"]
# A click is followed by a padding point, which SAM expects wherever there is no box.
_LABELS: dict[Prompt, tuple[int, int]] = {"box": (2, 3), "point": (1, -1)}


def prompt_points(prompt: Prompt, fitted: Sequence[FittedView]) -> tuple[Tensor, Tensor]:
    """One prompt for each object of B views, of which the fullest has P objects.

    Args:
        prompt: "box" for the ground-truth box, "point" for one click on the pixel of the
            ground-truth mask that is farthest from the mask's edge.
        fitted: views at the model's resolution.

    Returns:
        float32 B×P×2×2 points, (x, y) in pixels of the input frame, and their int64 B×P×2 labels.
        Prompts past a view's last object lie at the origin.
    """
    most = max(len(frame.boxes) for frame in fitted)
    points = torch.zeros(len(fitted), most, 2, 2)
    for place, frame in enumerate(fitted):
        corners = _corners(frame) if prompt == "box" else _clicks(frame)
        points[place, : len(corners)] = torch.from_numpy(corners)
    return points, torch.tensor(_LABELS[prompt]).expand(len(fitted), most, 2)


def _corners(frame: FittedView) -> NDArray[np.float32]:
    return frame.boxes.reshape(-1, 2, 2)


def _clicks(frame: FittedView) -> NDArray[np.float32]:
    clicks = np.array([interior_point(mask) for mask in frame.masks], np.float32)
    return np.stack([clicks * frame.scale, np.zeros_like(clicks)], axis=1)
