"""The errors that hwsearch raises on purpose.

Each message is one sentence for a person: what came, what was allowed, what to do.
The command line prints it without a traceback and exits with `exit_code`.
"""

from __future__ import annotations

from collections.abc import Mapping


class HwsearchError(Exception):
    """Base of every error that hwsearch raises on purpose."""

    exit_code = 1


class UsageError(HwsearchError):
    """An argument has a form or a value that is not allowed."""

    exit_code = 2


class CheckpointError(HwsearchError):
    """A checkpoint or a supernet directory is missing, damaged, unsafe or of another geometry."""


class DataError(HwsearchError):
    """A data folder, an annotation file or an image can't be used."""


class DeviceError(HwsearchError):
    """The device, its runtime or a package that it needs is not available here."""


class TrainingError(HwsearchError):
    """A training can't go on: it diverges, or another one works in its directory."""


class ProfileError(HwsearchError):
    """A latency profile is missing, damaged, or lacks what was asked of it."""


class PredictorError(HwsearchError):
    """A latency predictor is missing, damaged, not fitted, or belongs to another target."""


class ExportError(HwsearchError):
    """A subnet could not be exported, or an exported file failed its parity gate."""


class InfeasibleError(HwsearchError):
    """No subnet meets the target; the message names the nearest one.

    `details` says the same in the form of a JSON object.
    """

    exit_code = 3

    def __init__(self, message: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class StoppedError(HwsearchError):
    """The user pressed Ctrl-C."""

    exit_code = 130
