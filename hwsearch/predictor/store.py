"""A fitted latency predictor as a folder of text files, without pickle.

`predictor.json` holds the target, the choice of the model and its errors, `training.json` the
measured rows, CARD.md and `scatter.svg` the same for people; `source/` is the predictor that this
one was transferred from, if any, in the same form. Loading refits the chosen model on the stored
rows, which takes milliseconds and outlives releases of scikit-learn, and compares its predictions
with the stored ones.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import sklearn

import hwsearch
from hwsearch.errors import PredictorError, UsageError
from hwsearch.files import write_text
from hwsearch.predictor.card import SCATTER_FILE, card_text
from hwsearch.predictor.crossvalidation import ModelChoice
from hwsearch.predictor.features import SCHEMA
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.models import candidates
from hwsearch.predictor.scatter import scatter_svg
from hwsearch.predictor.transfer import transfer_candidates
from hwsearch.records import Milliseconds, Record, SamGeometry, Scope, SubnetConfig, Target

PREDICTOR_FILE = "predictor.json"
TRAINING_FILE = "training.json"
CARD_FILE = "CARD.md"
SOURCE_FOLDER = "source"
PROBE_TOLERANCE = 0.005

AnyRecord = TypeVar("AnyRecord", bound=Record)


class TrainingRow(Record):
    """A measured subnet."""

    latency_ms: Milliseconds
    subnet: SubnetConfig


class TrainingRows(Record):
    """All subnets that a latency predictor was fitted on."""

    rows: tuple[TrainingRow, ...]


class StoredPredictor(Record):
    """What `predictor.json` holds.

    `probes_ms` are the predictions for the training rows when the predictor was saved, by the
    versions named in `versions`. `training_sha256` ties the file to its `training.json`,
    `source_sha256` to the `predictor.json` of its source, and `models_sha256` its choice and errors
    to the models that they are of.
    """

    schema_version: Literal[1] = 1
    target: Target
    target_fingerprint: str
    supernet_id: str
    geometry: SamGeometry
    scope: Scope
    seed: int
    noise_floor_percent: float | None = None
    choice: ModelChoice
    probes_ms: tuple[Milliseconds, ...]
    training_sha256: str
    source_sha256: str | None = None
    models_sha256: str | None = None
    versions: dict[str, str]


def save_latency_predictor(
    predictor: LatencyPredictor, directory: Path, *, noise_floor_percent: float | None = None
) -> None:
    """Write a fitted latency predictor and its card into `directory`, which is made if missing.

    Each file is written in one rename, `predictor.json` last: an interrupted save leaves the old
    predictor, or files that the next load refuses, never a mixture that loads.

    Args:
        predictor: a fitted one.
        directory: by convention `predictors/<target>/<supernet>`.
        noise_floor_percent: see `profiler.noise`, for the card; None takes the predictor's.

    Raises:
        PredictorError: the predictor is not fitted, or the folder can't be written.
    """
    folder = "/".join(("predictors", *directory.resolve().parts[-2:]))
    floor = predictor.noise_floor_percent if noise_floor_percent is None else noise_floor_percent
    _save(predictor, directory, folder=folder, noise_floor_percent=floor)


def _save(
    predictor: LatencyPredictor, directory: Path, *, folder: str, noise_floor_percent: float | None
) -> None:
    """Write one with its sources; `folder` is where its card says that it is."""
    probes = predictor.predict(getattr(predictor, "configs_", ()))
    if predictor.source is not None:
        _save(
            predictor.source,
            directory / SOURCE_FOLDER,
            folder=f"{folder}/{SOURCE_FOLDER}",
            noise_floor_percent=predictor.source.noise_floor_percent,
        )
    training = _training_text(predictor)
    stored = StoredPredictor(
        target=predictor.target,
        target_fingerprint=predictor.target.fingerprint,
        supernet_id=predictor.supernet_id,
        geometry=predictor.geometry,
        scope=predictor.scope,
        seed=predictor.seed,
        noise_floor_percent=noise_floor_percent,
        choice=predictor.choice_,
        probes_ms=tuple(probes.tolist()),
        training_sha256=_sha256(training),
        source_sha256=_source_sha256(directory) if predictor.source else None,
        models_sha256=_models_sha256(has_source=predictor.source is not None),
        versions=_versions(),
    )
    card = card_text(predictor, folder=folder, noise_floor_percent=noise_floor_percent)
    scatter = scatter_svg(
        predictor.latencies_ms_.tolist(),
        predictor.out_of_fold_ms().tolist(),
        title=f"{predictor.supernet_id}, {len(probes)} subnets measured",
    )
    try:
        write_text(directory / TRAINING_FILE, training)
        write_text(directory / SCATTER_FILE, scatter)
        write_text(directory / CARD_FILE, card)
        write_text(directory / PREDICTOR_FILE, stored.model_dump_json(indent=1) + "\n")
        if predictor.source is None and (directory / SOURCE_FOLDER).exists():
            shutil.rmtree(directory / SOURCE_FOLDER)  # of the predictor that was replaced
    except OSError as error:
        raise PredictorError(
            f"The latency predictor can't be written to {directory}: {error.strerror}."
        ) from None


def load_latency_predictor(
    directory: Path | str, *, target: Target | None = None, allow_stale: bool = False
) -> LatencyPredictor:
    """Load what `save_latency_predictor` wrote.

    Warns (UserWarning) where a stale predictor is let through, and where the refitted model's
    predictions differ from the stored ones by more than 0.5 %.

    Args:
        directory: `predictors/<target>/<supernet>`.
        target: the target that predictions are wanted for; None takes the predictor's own.
        allow_stale: let a predictor of another target pass.

    Raises:
        PredictorError: a file is missing or damaged, or the predictor belongs to another target, or
            to a version with other models.
    """
    folder = Path(directory)
    stored = _parsed(StoredPredictor, folder / PREDICTOR_FILE, _read(folder / PREDICTOR_FILE))
    training_text = _read(folder / TRAINING_FILE)
    if stored.target_fingerprint != stored.target.fingerprint:
        raise _damaged(folder / PREDICTOR_FILE, "its fingerprint is not that of its target")
    if stored.models_sha256 != _models_sha256(has_source=stored.source_sha256 is not None):
        raise _damaged(folder / PREDICTOR_FILE, "it is of a version with other models")
    if stored.training_sha256 != _sha256(training_text):
        raise _damaged(folder / TRAINING_FILE, f"it is not the one that {PREDICTOR_FILE} names")
    training = _parsed(TrainingRows, folder / TRAINING_FILE, training_text)
    source = _stored_source(stored, folder)
    try:
        predictor = LatencyPredictor(
            stored.geometry,
            stored.target,
            stored.supernet_id,
            scope=stored.scope,
            seed=stored.seed,
            source=source,
            noise_floor_percent=stored.noise_floor_percent,
        )
    except PredictorError as error:
        raise _damaged(folder / SOURCE_FOLDER, str(error).rstrip(".")) from None
    if target is not None:
        _check_target(predictor, target, allow_stale=allow_stale)
    try:
        predictor.refit(
            [row.subnet for row in training.rows],
            [row.latency_ms for row in training.rows],
            stored.choice,
        )
    except (KeyError, ValueError, UsageError) as error:  # scikit-learn's refusals are ValueErrors
        raise _damaged(folder / PREDICTOR_FILE, str(error).rstrip(".")) from error
    _check_probes(predictor, stored, folder)
    return predictor


def _stored_source(stored: StoredPredictor, folder: Path) -> LatencyPredictor | None:
    if stored.source_sha256 is None:
        return None
    source = load_latency_predictor(folder / SOURCE_FOLDER)
    if stored.source_sha256 != _source_sha256(folder):
        raise _damaged(folder / SOURCE_FOLDER, f"it is not the one that {PREDICTOR_FILE} names")
    return source


def _source_sha256(folder: Path) -> str:
    return _sha256(_read(folder / SOURCE_FOLDER / PREDICTOR_FILE))


def _check_target(predictor: LatencyPredictor, target: Target, *, allow_stale: bool) -> None:
    try:
        predictor.check_target(target)
    except PredictorError as error:
        if not allow_stale:
            raise
        warnings.warn(f"A stale predictor is used. {error}", stacklevel=3)


def _check_probes(predictor: LatencyPredictor, stored: StoredPredictor, folder: Path) -> None:
    """Warn where the refitted model is not the one that was saved."""
    saved = np.array(stored.probes_ms)
    if saved.shape != predictor.latencies_ms_.shape or not (saved > 0).all():
        raise _damaged(folder / PREDICTOR_FILE, "its probes are not those of its training rows")
    deviation = float(np.abs(predictor.predict(predictor.configs_) / saved - 1).max())
    if not np.isfinite(deviation):
        raise _damaged(folder / PREDICTOR_FILE, "its model predicts no numbers")
    if deviation > PROBE_TOLERANCE:
        then = ", ".join(f"{name} {version}" for name, version in stored.versions.items())
        now = ", ".join(f"{name} {version}" for name, version in _versions().items())
        warnings.warn(
            f"The latency predictor in {folder} predicts up to {100 * deviation:.1f} % otherwise "
            f"than when it was saved (by {then}; here {now}): fit it again.",
            stacklevel=3,
        )


def _training_text(predictor: LatencyPredictor) -> str:
    """JSON with one row a line, so that a difference of two files shows the rows that differ."""
    rows = [
        TrainingRow(latency_ms=latency, subnet=config).to_json()
        for config, latency in zip(
            predictor.configs_, predictor.latencies_ms_.tolist(), strict=True
        )
    ]
    return '{"rows": [\n' + ",\n".join(rows) + "\n]}\n"


def _parsed(record: type[AnyRecord], path: Path, text: str) -> AnyRecord:
    try:
        return record.from_json(text)
    except UsageError as error:
        raise _damaged(path, str(error).rstrip(".")) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PredictorError(
            f"There is no latency predictor in {path.parent}: {path.name} is missing. Make one "
            "with 'hwsearch fit'."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, fault: str) -> PredictorError:
    return PredictorError(f"{path} can't be used: {fault}. Fit the latency predictor again.")


def _models_sha256(*, has_source: bool) -> str:
    """Of all columns, and of the models to choose from: errors of other ones are not theirs."""
    models = transfer_candidates(SCHEMA) if has_source else candidates(SCHEMA)
    return _sha256(repr((SCHEMA, models)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {
        "hwsearch": hwsearch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
    }
