"""The training loop of a supernet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hwsearch.data.dataset import Dataset
from hwsearch.errors import TrainingError
from hwsearch.progress import Progress, SilentProgress
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.batches import training_batches
from hwsearch.supernet.training.clock import Clock
from hwsearch.supernet.training.log import TrainingLog
from hwsearch.supernet.training.rules import DrawSubnets
from hwsearch.supernet.training.settings import TrainSettings
from hwsearch.supernet.training.state import TrainingState, load_state, save_state
from hwsearch.supernet.training.step import training_step

MOST_WARMUP = 10  # a tenth of the steps at most
LOCK_NAME = ".training.lock"
Tensors = tuple[Tensor, ...] | list[Tensor]
Validate = Callable[[Supernet], dict[str, float]]


def train(
    supernet: Supernet,
    datasets: Sequence[Dataset],
    *,
    settings: TrainSettings,
    draw_subnets: DrawSubnets,
    directory: Path,
    purpose: str = "",
    validate: Validate | None = None,
    data_workers: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train a supernet in place; an interrupted run resumes where its last checkpoint was.

    Each logged line tells the mean loss of the first subnet, images a second, and which share of
    the time went into waiting for data, encoder, decoder and optimiser.

    Args:
        supernet: changed in place, on the device that it is on; at the end it holds the averaged
            weights.
        datasets: training sets, drawn from evenly.
        settings: how long and how.
        draw_subnets: the subnets of a step, the teacher of in-place distillation first.
        directory: holds the checkpoint of the running training and its log `training.jsonl`.
        purpose: what is trained by which rule; a checkpoint of another purpose is refused.
        validate: called now and then with the averaged weights in place; its figures are logged.
        data_workers: processes that prepare batches; 0 for one thread of this process.
        progress: who shows the steps.

    Returns:
        The logged lines of this run and of the runs that it resumed.

    Raises:
        CheckpointError: the directory holds a checkpoint of another training.
        TrainingError: the loss is no longer a number, or another process trains there.
    """
    with _held(directory):
        return _train(
            supernet,
            datasets,
            settings=settings,
            draw_subnets=draw_subnets,
            directory=directory,
            purpose=purpose,
            validate=validate,
            data_workers=data_workers,
            progress=progress or SilentProgress(),
        )


def _train(
    supernet: Supernet,
    datasets: Sequence[Dataset],
    *,
    settings: TrainSettings,
    draw_subnets: DrawSubnets,
    directory: Path,
    purpose: str,
    validate: Validate | None,
    data_workers: int,
    progress: Progress,
) -> list[dict[str, float]]:
    sam = supernet.sam
    device = next(sam.parameters()).device
    optimizer = _optimizer(supernet, settings)
    average = AveragedModel(sam, multi_avg_fn=_ramped_average(settings.ema_decay))
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
        workers=data_workers,
    )
    sam.train()
    with TrainingLog(directory, start) as log, progress.task("training", settings.steps) as advance:
        advance(start, "resumed" if start else "")
        clock, losses = Clock(device), []
        for step in range(start, settings.steps):
            with clock.measuring("data"):
                batch = next(batches).to(device)
            _set_learning_rate(optimizer, step, settings)
            rng = np.random.default_rng([settings.seed, step, 1])
            subnets = draw_subnets(rng)
            losses.append(
                training_step(supernet, batch, subnets, optimizer, settings, rng=rng, clock=clock)
            )
            average.update_parameters(sam)
            advance(1, f"loss {losses[-1]:.3f}")
            done = step + 1
            last = done == settings.steps
            judged = validate is not None and (last or done % settings.validate_every == 0)
            if judged or last or done % settings.checkpoint_every == 0:
                seconds, shares = clock.take()
                line = {
                    "step": done,
                    "loss": float(np.mean(losses)),
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "images_per_s": len(losses) * settings.batch.images / seconds,
                } | {f"{activity}_share": round(share, 4) for activity, share in shares.items()}
                losses = []
                if validate is not None and judged:
                    line |= _validated(supernet, average, validate)
                    progress.log(f"step {done}: {line}")
                # A line past the checkpoint is dropped on resuming; a missing one would be lost.
                log.add(line)
                save_state(directory, state, done)
                clock.take()  # validation and checkpoint are not training
        lines = log.lines
    sam.load_state_dict(average.module.state_dict())
    sam.eval()
    return lines


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep other processes from training in the same directory, which would mix two runs."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / LOCK_NAME, timeout=0):
            yield
    except Timeout:
        raise TrainingError(
            f"Another process trains in {directory}: wait for it, or take another --out."
        ) from None


def _optimizer(supernet: Supernet, settings: TrainSettings) -> torch.optim.Optimizer:
    sam = supernet.sam
    sam.requires_grad_(True)
    sam.prompt_encoder.requires_grad_(settings.train_prompt_encoder)
    trained: list[Tensor] = [tensor for tensor in sam.parameters() if tensor.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=True,
    )


def _ramped_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """An exponential moving average whose window grows with the number of steps behind it.

    With the whole decay from the first step on, a training of a few hundred steps would end near
    the weights that it began with. After n updates it is min(`decay`, (1 + n) / (10 + n)), as in
    TensorFlow's `ExponentialMovingAverage`.
    """

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, count)

    return update


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, settings: TrainSettings
) -> None:
    warmup_steps = min(settings.warmup_steps, settings.steps // MOST_WARMUP)
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    done = max(0, step - warmup_steps) / max(1, settings.steps - warmup_steps)
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
