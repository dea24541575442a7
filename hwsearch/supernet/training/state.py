"""The checkpoint of a running training, and its log."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from segment_anything.modeling import Sam
from torch.optim.swa_utils import AveragedModel

from hwsearch.errors import CheckpointError
from hwsearch.files import replace_file, write_text
from hwsearch.records import short_digest

if TYPE_CHECKING:
    from hwsearch.supernet.training.train import TrainSettings

CHECKPOINT_NAME = "training-state.pt"
LOG_NAME = "training.jsonl"


@dataclass
class TrainingState:
    """All that has to be kept for a training to go on as if it had never stopped.

    `purpose` tells what is trained on what, beyond the settings.
    """

    sam: Sam
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    purpose: str
    log: list[dict[str, float]] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Digest of the settings; a checkpoint is only resumed under the same ones."""
        return short_digest(json.dumps([asdict(self.settings), self.purpose], sort_keys=True))


def load_state(directory: Path, state: TrainingState) -> int:
    """Restore what `save_state` kept; how many steps are done, 0 without a checkpoint.

    Raises:
        CheckpointError: the checkpoint is damaged or belongs to another training.
    """
    path = directory / CHECKPOINT_NAME
    if not path.exists():
        return 0
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        fingerprint, step = kept["fingerprint"], int(kept["step"])
    except (RuntimeError, pickle.UnpicklingError, KeyError, EOFError, TypeError):
        raise CheckpointError(
            f"The training checkpoint {path} is damaged: delete it to start again."
        ) from None
    if fingerprint != state.fingerprint:
        raise CheckpointError(
            f"{path} belongs to a training with other settings, data or weights to start from: use "
            "the same ones to go on, another --out to start anew, or delete the file."
        )
    state.sam.load_state_dict(kept["model"])
    state.average.load_state_dict(kept["average"])
    state.optimizer.load_state_dict(kept["optimizer"])
    state.log.extend(_read_log(directory, step))
    write_text(directory / LOG_NAME, "".join(json.dumps(line) + "\n" for line in state.log))
    return step


def save_state(directory: Path, state: TrainingState, step: int) -> None:
    """Write the checkpoint after `step` steps, in one rename."""
    directory.mkdir(parents=True, exist_ok=True)
    with replace_file(directory / CHECKPOINT_NAME) as temporary:
        torch.save(
            {
                "fingerprint": state.fingerprint,
                "step": step,
                "model": state.sam.state_dict(),
                "average": state.average.state_dict(),
                "optimizer": state.optimizer.state_dict(),
            },
            temporary,
        )


def append_log(directory: Path, state: TrainingState, line: dict[str, float]) -> None:
    """Add one line to the log, and to TensorBoard's where that is installed (extra `train`)."""
    state.log.append(line)
    with (directory / LOG_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(str(directory / "tensorboard")) as writer:
        for name, value in line.items():
            writer.add_scalar(name, value, int(line["step"]))


def _read_log(directory: Path, step: int) -> list[dict[str, float]]:
    """The lines up to `step`; one that an interruption tore, or that came after, is dropped."""
    path = directory / LOG_NAME
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("step", step + 1) <= step:
            lines.append(line)
    return lines
