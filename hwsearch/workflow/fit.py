"""The stage that fits: a latency predictor on a profile."""

from __future__ import annotations

from pathlib import Path

from hwsearch.errors import ProfileError
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import load_latency_predictor, save_latency_predictor
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import SamGeometry, Scope, Target
from hwsearch.workflow.workspace import Workspace


def fit_latency_predictor(
    geometry: SamGeometry,
    *,
    target: Target,
    workspace: Workspace,
    scope: Scope = "full",
    seed: int = 0,
    allow_stale: bool = False,
    transfer_from: Path | None = None,
    progress: Progress | None = None,
) -> tuple[LatencyPredictor, Path]:
    """Fit a predictor on every measured subnet, and write it with its card.

    Args:
        geometry: the supernet's sizes.
        target: whose profile to use.
        workspace: holds the profile, and gets the predictor.
        scope: which part of the model to predict.
        seed: decides the folds of cross-validation.
        allow_stale: take a profile that was made under other versions.
        transfer_from: directory of another target's predictor of the same supernet, to start from.
        progress: told where marked measurements have to do, or a baseline does as well.

    Returns:
        The predictor and its directory.

    Raises:
        ProfileError: nothing was measured yet, or nothing could be.
        PredictorError: too few subnets were measured, or the predictor to start from can't be used.
    """
    progress = progress or SilentProgress()
    store = ProfileStore(workspace.profiles, target, allow_stale=allow_stale)
    source = None if transfer_from is None else load_latency_predictor(transfer_from)
    # A stale profile makes a stale predictor: it keeps the versions that were measured.
    profile = store.read(geometry.id)
    predictor = LatencyPredictor(
        geometry,
        store.measured_target,
        geometry.id,
        scope=scope,
        seed=seed,
        source=source,
        noise_floor_percent=noise_floor(profile.measurements, scope=scope),
    )
    configs, latencies_ms = profile.latencies(scope)
    if len(configs) < predictor.min_samples:
        # On a machine that never rests, marked figures beat none.
        steady = len(configs)
        configs, latencies_ms = profile.latencies(scope, include_drifted=True)
        if len(configs) > steady:
            progress.log(
                f"Warning: only {steady} of {len(configs)} subnets were measured while the machine "
                "kept its speed; the predictor is fitted on the marked ones too."
            )
    if not configs:
        raise ProfileError(profile.why_empty(geometry.id, target))
    with progress.task(f"fitting on {len(configs)} subnets", 1) as advance:
        predictor.fit(configs, latencies_ms)
        advance()
    plainest = min(predictor.cv_.baselines, key=lambda score: score.mape_percent)
    if plainest.mape_percent <= predictor.cv_.mape_percent:
        progress.log(
            f"Warning: '{plainest.name}' errs by {plainest.mape_percent:.2f} %, the predictor by "
            f"{predictor.cv_.mape_percent:.2f} %: profile more subnets, or again while nothing "
            "else runs."
        )
    directory = workspace.predictor(target, geometry.id)
    save_latency_predictor(predictor, directory)
    return predictor, directory
