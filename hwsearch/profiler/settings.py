"""How long and how carefully a session measures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwsearch.errors import UsageError
from hwsearch.records import Target
from hwsearch.runtime.gpus import is_on_gpu

# A GPU's runs are short and its clock rises while it works, so that a turn has more of them.
# Opening a model includes the build of its engine.
_GPU_CALLS = 100
_GPU_SETTLE_CALLS = 10
_GPU_DEADLINE_S = 3600.0

_POSITIVE = ("relative_half_width", "budget_s", "max_half_width", "max_drift", "deadline_s")


@dataclass(frozen=True)
class SessionSettings:
    """How a session measures; the defaults suit subnets from 1 ms to a few seconds.

    Attributes:
        warmup_s: seconds each subject runs before it is timed, in two calls at least.
        min_rounds: rounds that every group gets, whatever `budget_s` says.
        max_rounds: rounds after which a group ends, however much of `budget_s` is left.
        relative_half_width: a subject is done once the 95 % interval of its corrected median
            reaches no further than this share of the median to either side.
        budget_s: seconds of rounds after which a group ends.
        group_size: subjects that are open at the same time, beside the reference; fewer where
            memory holds no more.
        max_half_width: a measurement is marked if the interval of its corrected latency reaches
            further than this share to either side, or if the two halves of its turns differ by
            more than three times as much.
        max_drift: a measurement is marked if the machine became slower by more than this share
            between two of its turns: then it is doubtful that all models slow down alike.
        slice_s: seconds of timed calls that a short model gets in each round.
        max_calls: most timed calls a model gets in each round.
        settle_s: a model that takes less gets `settle_calls` untimed calls first in each round,
            which bring back the caches that the models before it took.
        settle_calls: see `settle_s`.
        deadline_s: seconds after which opening a model, or a turn, is taken to hang.
        seed: of the groups, the order in each round and the bootstrap.
    """

    warmup_s: float = 0.3
    min_rounds: int = 5
    max_rounds: int = 120
    relative_half_width: float = 0.01
    budget_s: float = 60.0
    group_size: int = 8
    max_half_width: float = 0.03
    max_drift: float = 1.0
    slice_s: float = 0.05
    max_calls: int = 5
    settle_s: float = 0.25
    settle_calls: int = 1
    deadline_s: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.min_rounds <= self.max_rounds:
            raise UsageError(
                f"min_rounds {self.min_rounds} and max_rounds {self.max_rounds} don't go together: "
                "take 2 ≤ min_rounds ≤ max_rounds."
            )
        for name in ("group_size", "max_calls", "settle_calls"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: take at least 1.")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}: take more than 0.")


def settings_for(target: Target, settings: SessionSettings) -> SessionSettings:
    """`settings` on a target: a GPU gets turns of more calls, and time to build engines."""
    if not is_on_gpu(target):
        return settings
    return replace(
        settings,
        max_calls=max(settings.max_calls, _GPU_CALLS),
        settle_calls=max(settings.settle_calls, _GPU_SETTLE_CALLS),
        deadline_s=max(settings.deadline_s, _GPU_DEADLINE_S),
    )
