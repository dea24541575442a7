"""Where the results of all stages lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwsearch.errors import HwsearchError, UsageError
from hwsearch.records import Target


def default_study_name(
    supernet: str, data: str, latencies_ms: Sequence[float], precisions: Sequence[str] = ()
) -> str:
    """A name that tells what is searched, where, under which targets and in which precisions.

    Of a single precision nothing is told, as ever.
    """
    words = [Path(part).resolve().name for part in (supernet, data)]
    choices = precisions if len(precisions) > 1 else ()
    name = "-".join([*words, *(f"{latency_ms:g}ms" for latency_ms in latencies_ms), *choices])
    return re.sub(r"[^\w.+-]+", "_", name).lstrip(".+-")


@dataclass(frozen=True)
class Workspace:
    """A folder with the layout of this project's own repository: profiles, predictors, studies."""

    root: Path

    @property
    def profiles(self) -> Path:
        """Latency profiles, one folder a target."""
        return self.root / "profiles"

    @property
    def predictors(self) -> Path:
        """Latency predictors, one folder a target and in it one a supernet."""
        return self.root / "predictors"

    def predictor(self, target: Target, supernet_id: str) -> Path:
        """The latency predictor of a supernet on a target."""
        return self.predictors / target.name / supernet_id

    def study(self, name: str) -> Path:
        """Everything that one search leaves.

        Raises:
            UsageError: the name can't be a folder's.
        """
        if not re.fullmatch(r"[\w][\w.+-]*", name):
            raise UsageError(
                f"A study can't be named {name!r}: take letters, digits, '.', '_', '+' and '-'."
            )
        return self.root / "studies" / name

    def study_predictors(self, name: str) -> Path:
        """The latency predictors that a search began with; gone once it has ended."""
        return self.study(name) / "predictors"

    @property
    def storage(self) -> str:
        """URL of the Optuna storage that studies use unless another is given."""
        folder = self.root / "studies"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HwsearchError(
                f"The workspace {self.root} can't be written: {error.strerror}."
            ) from None
        return f"sqlite:///{folder.resolve() / 'studies.db'}"

    @property
    def accuracies(self) -> Path:
        """The accuracy cache that all studies share."""
        return self.root / "studies" / "accuracies.jsonl"
