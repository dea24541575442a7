"""How a supernet is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwsearch.errors import UsageError
from hwsearch.supernet.training.batches import BatchSettings
from hwsearch.supernet.training.losses import LossWeights


@dataclass(frozen=True)
class TrainSettings:
    """How long a supernet is trained, and how.

    The learning rate warms up linearly over `warmup_steps`, or a tenth of `steps` where these are
    few, and falls to zero along a cosine. The weights that training leaves are an exponential
    moving average whose decay rises to `ema_decay`. In
    `correction_share` of the steps, every prompt is followed by a click where its mask was wrong.
    """

    steps: int = 2000
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    distillation: bool = True
    correction_share: float = 0.25
    train_prompt_encoder: bool = False
    bfloat16: bool = True
    seed: int = 0
    checkpoint_every: int = 100
    validate_every: int = 500
    batch: BatchSettings = field(default_factory=BatchSettings)
    loss: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "validate_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of a training is {getattr(self, name)}: take at least 1.")
