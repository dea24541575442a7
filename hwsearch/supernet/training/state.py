"""The checkpoint of a running training."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from segment_anything.modeling import Sam
from torch.optim.swa_utils import AveragedModel

from hwsearch.errors import CheckpointError
from hwsearch.files import replace_file
from hwsearch.records import short_digest
from hwsearch.supernet.training.settings import TrainSettings

CHECKPOINT_NAME = "training-state.pt"


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
