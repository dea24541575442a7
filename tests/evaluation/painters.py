"""Segmenters that paint their answer from the prompt alone, so that their figures are known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hwsearch.data.dataset import Pixels

RESOLUTION = 64
CELL = 4
SIDE = RESOLUTION // CELL


class Painter:
    """Answers a box with the filled box, and a click with a disc around it.

    Args:
        right: which of the three masks has the answer; the others are empty.
        favourite: which one gets the highest predicted IoU.
        radius: of the disc, in pixels of the input frame.
    """

    resolution = RESOLUTION

    def __init__(self, *, right: int = 0, favourite: int = 0, radius: float = 16) -> None:
        self.right, self.favourite, self.radius = right, favourite, radius
        self.encoded = 0
        self.prompts: list[str] = []
        self.clicks: list[tuple[float, float]] = []

    def encode(self, images: Sequence[Pixels]) -> Tensor:
        assert all(max(image.shape[:2]) == RESOLUTION for image in images)
        self.encoded += len(images)
        return torch.zeros(len(images), 1, SIDE // 4, SIDE // 4)

    def decode(self, embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        is_box = bool((labels == torch.tensor([2, 3])).all())
        if not is_box:
            assert (labels == torch.tensor([1, -1])).all()
            self.clicks += [tuple(click) for click in points[:, :, 0].flatten(0, 1).tolist()]
        self.prompts.append("box" if is_box else "point")
        images, prompts = points.shape[:2]
        logits = torch.full((images, prompts, 3, SIDE, SIDE), -1.0)
        logits[:, :, self.right] = self._boxes(points) if is_box else self._discs(points[:, :, 0])
        ious = torch.zeros(images, prompts, 3)
        ious[:, :, self.favourite] = 0.5
        return logits, ious

    def _boxes(self, corners: Tensor) -> Tensor:
        low, high = corners[:, :, 0, :, None], corners[:, :, 1, :, None]
        inside = (_centres() > low) & (_centres() < high)  # B×P×(x, y)×S
        return (inside[:, :, 1, :, None] & inside[:, :, 0, None, :]).float() - 0.5

    def _discs(self, clicks: Tensor) -> Tensor:
        apart = _centres() - (clicks[..., None] + 0.5)  # B×P×(x, y)×S
        squared = apart[:, :, 1, :, None] ** 2 + apart[:, :, 0, None, :] ** 2
        return self.radius - squared.sqrt()


def _centres() -> Tensor:
    return CELL * (torch.arange(SIDE) + 0.5)
