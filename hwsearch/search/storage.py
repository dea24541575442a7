"""Where studies are kept: any of Optuna's storages, with heartbeats where it has them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.storages import (
    BaseStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from hwsearch.errors import HwsearchError, UsageError

HEARTBEAT_S = 15
GRACE_S = 60  # a worker that is silent for so long counts as gone
MOST_RETRIES = 3  # of a trial whose worker died; then it is given up
WORKER, CHOSEN = "worker", "subnet"  # attributes of a trial: whose it is, and what it is about
SQLITE_PATIENCE_S = 60  # workers on one file wait for each other
JOURNAL = "journal://"
IN_MEMORY = ("sqlite://", "sqlite:///")
POSTGRESQL = ("postgresql://", "postgres://")
FAULTS = (SQLAlchemyError, OptunaError, ImportError, OSError, ValueError)


def open_storage(
    url: str, *, heartbeat_s: int = HEARTBEAT_S, grace_s: int = GRACE_S
) -> BaseStorage:
    """Open or make a storage.

    Args:
        url: `sqlite:///FILE`, `postgresql://USER@HOST/DATABASE` or any other URL of SQLAlchemy's,
            or `journal:///FILE`: an append-only file, for folders that machines share.
        heartbeat_s: seconds between two signs of life of a running trial; journals have none.
        grace_s: seconds of silence after which a trial is retried.

    Raises:
        UsageError: the storage can't be used.
    """
    if url.removesuffix(":memory:") in IN_MEMORY:
        raise storage_error(url, ValueError("it would be gone with the command"))
    try:
        with quiet_optuna():
            if url.startswith(JOURNAL):
                return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
            return RDBStorage(
                _with_driver(url),
                engine_kwargs=_engine_options(url),
                heartbeat_interval=heartbeat_s,
                grace_period=grace_s,
                heartbeat_stale_trial_callback=retry_callback(),
            )
    except FAULTS as bad:
        raise storage_error(url, bad) from None


def storage_error(url: str, bad: Exception) -> UsageError:
    """The sentence for a storage that fails."""
    return UsageError(
        f"The study storage '{_without_password(url)}' can't be used ({_reason(bad)}): give an "
        "Optuna storage URL, such as sqlite:///study.db, postgresql://user@host/database or journal:///study.log."
    )


@contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """Turn what a storage raises while a study runs into one sentence.

    Raises:
        HwsearchError: the storage failed.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as bad:
        raise HwsearchError(
            f"The study storage failed ({_reason(bad)}): once it is back, the same command goes on "
            "where it was."
        ) from None


def retry_callback() -> Callable[[optuna.Study, FrozenTrial], None]:
    """Puts a trial whose worker is gone back into the queue, with its parameters.

    It is queued as nobody's: who takes it would else look as gone as the one before. A trial that
    had not chosen all of its deployment is left to be proposed anew.
    """
    with quiet_optuna():
        queue = RetryHeartbeatStaleTrialCallback(max_retry=MOST_RETRIES)

    def retry(study: optuna.Study, trial: FrozenTrial) -> None:
        if CHOSEN in trial.user_attrs:
            anyones = copy.copy(trial)
            anyones.user_attrs = {k: v for k, v in trial.user_attrs.items() if k != WORKER}
            queue(study, anyones)

    return retry


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna's own lines would tear the progress bar; those of a failed trial hold a traceback.

    What made it fail is raised all the same. Heartbeats count as experimental.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _reason(bad: Exception) -> str:
    return (str(bad) or type(bad).__name__).splitlines()[0].rstrip(".")


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:  # no URL of a database
        return url


def _with_driver(url: str) -> str:
    """Psycopg 3 is the driver that the extra `postgresql` installs."""
    for scheme in POSTGRESQL:
        if url.startswith(scheme):
            return f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return url


def _engine_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": SQLITE_PATIENCE_S}}
    return {"pool_pre_ping": True}
