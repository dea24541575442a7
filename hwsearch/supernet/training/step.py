"""One optimiser step for the gradients of several subnets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from hwsearch.errors import TrainingError
from hwsearch.records import SubnetConfig
from hwsearch.sam import autocast, decode
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.batches import TrainingBatch
from hwsearch.supernet.training.clock import Clock
from hwsearch.supernet.training.corrections import corrective_clicks
from hwsearch.supernet.training.losses import distillation_loss, sam_loss
from hwsearch.supernet.training.settings import TrainSettings


class Pyramid:
    """A batch at the resolutions of a step's subnets, each made once.

    Args:
        batch: at the resolution of the full model.
    """

    def __init__(self, batch: TrainingBatch) -> None:
        self._batch = batch
        self._images: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor] = {}

    def images(self, resolution: int) -> Tensor:
        """B×3×R×R images."""
        if resolution not in self._images:
            self._images[resolution] = _resized(self._batch.images, resolution, "bilinear")
        return self._images[resolution]

    def inside(self, size: int) -> Tensor:
        """B×S×S, True on the picture and False on the padding beside it."""
        extents = self._batch.extents
        centres = (torch.arange(size, device=extents.device) + 0.5) / size
        rows, columns = (centres < extents[:, axis, None] for axis in (0, 1))
        return rows[:, :, None] & columns[:, None, :]

    def masks(self, size: int) -> Tensor:
        """B×P×S×S soft masks."""
        if size not in self._masks:
            self._masks[size] = _resized(self._batch.masks, size, "area")
        return self._masks[size]


def training_step(
    supernet: Supernet,
    batch: TrainingBatch,
    subnets: Iterable[SubnetConfig],
    optimizer: torch.optim.Optimizer,
    settings: TrainSettings,
    *,
    rng: np.random.Generator,
    clock: Clock,
) -> float:
    """Accumulate the gradients of all subnets, then step once; the loss of the first subnet.

    The batch is resized once for each resolution, and clicks that correct the first subnet's
    masks are given to all of them. Each subnet's backward pass stops at the embeddings and goes
    on from there, so that encoder and decoder are timed apart.

    Args:
        supernet: its gradients are overwritten.
        batch: images, prompts and masks.
        subnets: the first is the teacher of the others.
        optimizer: holds the parameters that are trained.
        settings: weights of the losses, and what else is done.
        rng: decides whether this step's prompts get a corrective click, and where.
        clock: told what encoder, decoder and optimiser take.

    Raises:
        TrainingError: a loss is infinite or no number; the weights are as they were.
    """
    optimizer.zero_grad(set_to_none=True)
    pyramid = Pyramid(batch)
    points, labels = batch.points, batch.labels
    correct = rng.random() < settings.correction_share
    teacher: tuple[Tensor, Tensor] | None = None
    first = math.nan
    for config in subnets:
        images = pyramid.images(config.resolution)
        scale = config.resolution / batch.images.shape[-1]
        casts = partial(autocast, images.device, enabled=settings.bfloat16)
        with supernet.active(config) as sam:
            with clock.measuring("encoder"), casts():
                encoded = sam.image_encoder(images)
            embeddings = encoded.detach().requires_grad_()
            if correct and teacher is None:
                # In a context of its own: autocast may keep the weights that it casts here, where
                # no gradient is wanted, and use them again below.
                with clock.measuring("decoder"), casts():
                    clicks, signs = _clicks(sam, embeddings, pyramid, (points * scale, labels), rng)
                points = torch.cat([points, clicks / scale], dim=2)
                labels = torch.cat([labels, signs], dim=2)
            with clock.measuring("decoder"), casts():
                logits, ious = decode(sam, embeddings, points * scale, labels)
        with clock.measuring("decoder"):
            logits, features = logits.float(), embeddings.float()
            loss = sam_loss(
                logits, ious.float(), pyramid.masks(logits.shape[-1]), batch.present, settings.loss
            )
            if not loss.isfinite():
                raise TrainingError(
                    f"The loss of subnet {config.id} is {loss.item()}: lower the learning rate, "
                    f"which reaches {settings.learning_rate:g}, or train in fp32."
                )
            if teacher is None:
                teacher, first = (logits.detach(), features.detach()), loss.item()
            elif settings.distillation:
                loss = loss + distillation_loss(
                    (logits, features), teacher, batch.present, settings.loss
                )
            loss.backward()
        with clock.measuring("encoder"):
            encoded.backward(embeddings.grad)
    with clock.measuring("optimizer"):
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        optimizer.step()
    return first


@torch.no_grad()
def _clicks(
    sam: Sam,
    embeddings: Tensor,
    pyramid: Pyramid,
    prompts: tuple[Tensor, Tensor],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Corrective clicks for the masks that the predicted IoU selects, in the subnet's frame."""
    logits, ious = decode(sam, embeddings, *prompts)
    best = 1 + ious[..., 1:].argmax(dim=-1)[..., None, None, None]
    size = logits.shape[-1]
    selected = logits.gather(2, best.expand(-1, -1, 1, size, size)).squeeze(2)
    return corrective_clicks(
        selected,
        pyramid.masks(size),
        pyramid.inside(size),
        cell=sam.image_encoder.img_size / size,
        rng=rng,
    )


def _resized(maps: Tensor, size: int, mode: str) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, size=(size, size), mode=mode, antialias=mode == "bilinear")
