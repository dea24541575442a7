"""The training loop: one optimiser step for the gradients of several subnets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hwsearch.data.dataset import Dataset
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import SubnetConfig
from hwsearch.sam import autocast, decode
from hwsearch.space import SearchSpace
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.batches import BatchSettings, TrainingBatch, training_batches
from hwsearch.supernet.training.losses import LossWeights, distillation_loss, sam_loss
from hwsearch.supernet.training.state import TrainingState, append_log, load_state, save_state

DrawSubnets = Callable[[np.random.Generator], list[SubnetConfig]]
Validate = Callable[[Supernet], dict[str, float]]


@dataclass(frozen=True)
class TrainSettings:
    """How a supernet is trained.

    The learning rate warms up linearly over `warmup_steps` and falls to zero along a cosine. The
    weights that training leaves are the exponential moving average with `ema_decay`.
    """

    steps: int = 2000
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    distillation: bool = True
    train_prompt_encoder: bool = False
    bfloat16: bool = True
    seed: int = 0
    checkpoint_every: int = 100
    validate_every: int = 500
    batch: BatchSettings = field(default_factory=BatchSettings)
    loss: LossWeights = field(default_factory=LossWeights)


def sandwich(
    space: SearchSpace, removal_probabilities: dict[int, float], random_subnets: int
) -> DrawSubnets:
    """The sandwich rule: largest, smallest and a few random subnets a step.

    From Universally Slimmable Networks (arXiv 1903.05134), section 3.2; random subnets leave out
    layers by their removal probabilities as in SuperSAM (arXiv 2501.08504).
    """

    def draw(rng: np.random.Generator) -> list[SubnetConfig]:
        between = [space.sample(rng, removal_probabilities or None) for _ in range(random_subnets)]
        return [space.largest, *between, space.smallest]

    return draw


def largest_only(space: SearchSpace) -> DrawSubnets:
    """Plain training of the full model."""
    return lambda rng: [space.largest]


def train(
    supernet: Supernet,
    datasets: Sequence[Dataset],
    *,
    settings: TrainSettings,
    draw_subnets: DrawSubnets,
    directory: Path,
    purpose: str = "",
    validate: Validate | None = None,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train a supernet in place; an interrupted run resumes where its last checkpoint was.

    Args:
        supernet: changed in place; at the end it holds the averaged weights.
        datasets: training sets, drawn from evenly.
        settings: how long and how.
        draw_subnets: the subnets of a step, the teacher of in-place distillation first.
        directory: holds the checkpoint of the running training and its log `training.jsonl`.
        purpose: what is trained by which rule; a checkpoint of another purpose is refused.
        validate: called now and then with the averaged weights in place; its figures are logged.
        progress: who shows the steps.

    Returns:
        The logged lines of this run and of the runs that it resumed.

    Raises:
        CheckpointError: the directory holds a checkpoint of another training.
    """
    progress = progress or SilentProgress()
    sam = supernet.sam
    trained = _trainable(supernet, settings)
    optimizer = torch.optim.AdamW(
        _parameter_groups(trained, settings.weight_decay), lr=settings.learning_rate
    )
    average = AveragedModel(sam, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    about = [purpose, supernet.space.to_json(), *(dataset.fingerprint for dataset in datasets)]
    state = TrainingState(sam, average, optimizer, settings, " ".join(about))
    start = load_state(directory, state)
    geometry = supernet.geometry
    batches = training_batches(
        datasets,
        resolution=geometry.image_size,
        mask_size=4 * geometry.image_size // geometry.patch_size,
        settings=settings.batch,
        seed=settings.seed,
        start=start,
        stop=settings.steps,
    )
    sam.train()
    with progress.task("training", settings.steps) as advance:
        advance(start, "resumed" if start else "")
        began, losses = time.monotonic(), []
        for step, batch in zip(range(start, settings.steps), batches, strict=False):
            _set_learning_rate(optimizer, step, settings)
            rng = np.random.default_rng([settings.seed, step, 1])
            losses.append(_step(supernet, batch, draw_subnets(rng), optimizer, settings))
            average.update_parameters(sam)
            advance(1, f"loss {losses[-1]:.3f}")
            done = step + 1
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                seconds, began = time.monotonic() - began, time.monotonic()
                line = {
                    "step": done,
                    "loss": float(np.mean(losses)),
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "images_per_s": len(losses) * settings.batch.images / seconds,
                }
                losses = []
                if validate and (done % settings.validate_every == 0 or done == settings.steps):
                    line |= _validated(supernet, average, validate)
                    progress.log(f"step {done}: {line}")
                    began = time.monotonic()
                save_state(directory, state, done)
                append_log(directory, state, line)
    sam.load_state_dict(average.module.state_dict())
    sam.eval()
    return state.log


def _step(
    supernet: Supernet,
    batch: TrainingBatch,
    subnets: Iterable[SubnetConfig],
    optimizer: torch.optim.Optimizer,
    settings: TrainSettings,
) -> float:
    """Accumulate the gradients of all subnets, then step once; the loss of the first subnet."""
    optimizer.zero_grad(set_to_none=True)
    teacher: tuple[Tensor, Tensor] | None = None
    first = math.nan
    for config in subnets:
        logits, ious, embeddings = forward_subnet(supernet, batch, config, settings.bfloat16)
        targets = _fitted(batch.masks, logits.shape[-1], mode="area")
        loss = sam_loss(logits, ious, targets, batch.present, settings.loss)
        if teacher is None:
            teacher, first = (logits, embeddings), loss.item()
        elif settings.distillation:
            loss = loss + distillation_loss(
                (logits, embeddings), teacher, batch.present, settings.loss
            )
        loss.backward()
        teacher = (teacher[0].detach(), teacher[1].detach())
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
    optimizer.step()
    return first


def forward_subnet(
    supernet: Supernet, batch: TrainingBatch, config: SubnetConfig, bfloat16: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask logits B×P×T×S×S, predicted IoUs B×P×T and image embeddings of an active subnet."""
    images = batch.images
    scale = config.resolution / images.shape[-1]
    with supernet.active(config) as sam, autocast(images.device, enabled=bfloat16):
        embeddings = sam.image_encoder(_fitted(images, config.resolution, mode="bilinear"))
        logits, ious = decode(sam, embeddings, batch.points * scale, batch.labels)
    return logits.float(), ious.float(), embeddings.float()


def _fitted(maps: Tensor, size: int, *, mode: str) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, size=(size, size), mode=mode, antialias=mode == "bilinear")


def _trainable(supernet: Supernet, settings: TrainSettings) -> list[Tensor]:
    sam = supernet.sam
    sam.requires_grad_(True)
    sam.prompt_encoder.requires_grad_(settings.train_prompt_encoder)
    return [parameter for parameter in sam.parameters() if parameter.requires_grad]


def _parameter_groups(parameters: list[Tensor], weight_decay: float) -> list[dict[str, object]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, settings: TrainSettings
) -> None:
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = max(0, step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * done))


def _validated(supernet: Supernet, average: AveragedModel, validate: Validate) -> dict[str, float]:
    """Figures of the averaged weights, which stand in for the running ones meanwhile."""
    sam = supernet.sam
    running = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    sam.load_state_dict(average.module.state_dict())
    sam.eval()
    try:
        return validate(supernet)
    finally:
        sam.load_state_dict(running)
        sam.train()
