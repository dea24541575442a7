"""What is evaluated: anything that encodes images and decodes prompts into masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from hwsearch.data.dataset import Pixels
from hwsearch.sam import decode, normalise


class Segmenter(Protocol):
    """A promptable model in two steps, so that several prompts share an image's embedding."""

    @property
    def resolution(self) -> int:
        """Side of the input frame in pixels."""
        ...

    def encode(self, images: Sequence[Pixels]) -> Tensor:
        """Embeddings of a batch of images.

        Args:
            images: B images, uint8 RGB (h, w, 3), whose long side is `resolution`.

        Returns:
            B×C×G×G embeddings.
        """
        ...

    def decode(self, embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The multi-mask outputs for every prompt of every image.

        Args:
            embeddings: B×C×G×G, from `encode`.
            points: B×P×N×2 (x, y) in pixels of the input frame.
            labels: B×P×N labels: 1 object, 0 background, 2 and 3 box corners, -1 none.

        Returns:
            B×P×M×S×S mask logits of the square input frame, above 0 on the object, and B×P×M
            predicted IoUs, on whatever device they were computed. SAM has M = 3; the single-mask
            output takes no part.
        """
        ...


class SamSegmenter:
    """A plain model in torch, such as an extracted subnet, on whatever device it is."""

    def __init__(self, sam: Sam) -> None:
        self._sam = sam

    @property
    def resolution(self) -> int:
        """Side of the input frame in pixels."""
        resolution: int = self._sam.image_encoder.img_size
        return resolution

    def encode(self, images: Sequence[Pixels]) -> Tensor:
        """Normalise, pad at the bottom and the right, and encode; see `Segmenter.encode`."""
        device = self._sam.pixel_mean.device
        frame = torch.zeros(len(images), 3, self.resolution, self.resolution, device=device)
        for place, image in enumerate(images):
            height, width = image.shape[:2]
            pixels = torch.tensor(image, device=device).permute(2, 0, 1)
            frame[place, :, :height, :width] = normalise(self._sam, pixels)
        embeddings: Tensor = self._sam.image_encoder(frame)
        return embeddings

    def decode(self, embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """All prompts of all images in one pass; see `Segmenter.decode`."""
        device = embeddings.device
        logits, ious = decode(self._sam, embeddings, points.to(device), labels.to(device))
        return logits[:, :, 1:], ious[:, :, 1:]
