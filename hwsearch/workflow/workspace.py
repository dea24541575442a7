"""Where the results of all stages lie."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sqlalchemy import URL

from hwsearch.errors import HwsearchError, UsageError
from hwsearch.records import Target, short_digest


def default_study_name(
    supernet: str, data: str, targets: Sequence[str], precisions: Sequence[str] = ()
) -> str:
    """A name that tells what is searched, where, under which targets and in which precisions.

    `targets` tell a latency each, and of the target what is not the default. Of fp32 alone nothing
    is told.
    """
    words = [Path(part).resolve().name for part in (supernet, data)]
    choices = () if list(precisions) == ["fp32"] else precisions
    name = "-".join([*words, *targets, *choices])
    return re.sub(r"[^\w.+-]+", "_", name).lstrip(".+-")


@dataclass(frozen=True)
class Workspace:
    """A folder with the layout of this project's own repository: profiles, predictors, studies.

    Raises:
        UsageError: it is a file, or below one.
    """

    root: Path

    def __post_init__(self) -> None:
        folders = (self.root, *self.root.absolute().parents)
        existing = next(path for path in folders if path.exists())
        if not existing.is_dir():
            raise UsageError(
                f"The workspace {self.root} can't be a folder, since {existing} is a file: name "
                "another."
            )

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

    def verifier(self, name: str) -> str:
        """Who measures for a study here: this workspace on the host of this name.

        Machines may share a folder, and their names may be alike, but seldom both. A container that
        gets another name with each start measures anew what the one before it had measured.
        """
        file = self.study(name) / "verifier"
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), file.open("x") as new:
            new.write(uuid4().hex)
        return short_digest(f"{file.read_text()} {socket.gethostname()}")

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
        return URL.create(
            "sqlite", database=str(folder.resolve() / "studies.db")
        ).render_as_string()

    @property
    def accuracies(self) -> Path:
        """The accuracy cache that all studies share."""
        return self.root / "studies" / "accuracies.jsonl"
