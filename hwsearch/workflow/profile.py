"""The stage that measures: a supernet's subnets on a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from hwsearch.errors import ProfileError
from hwsearch.predictor.latency_predictor import MIN_SAMPLES, LatencyPredictor
from hwsearch.predictor.sampling import stratified_sample
from hwsearch.predictor.sessions import learn_session_errors
from hwsearch.profiler.failures import is_hang
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import Profile, ProfileStore
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import SubnetConfig, Target
from hwsearch.runtime.gpus import is_on_gpu
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.adaptive import Goal, StoppedBy, fitted, most_telling, standing
from hwsearch.workflow.timing import ATTEMPTS, Stopwatch
from hwsearch.workflow.workspace import Workspace

DEFAULT_SAMPLES = 32
REPEATED_SHARE = 0.25
MIN_REPEATED = 2


@dataclass(frozen=True)
class ProfileSummary:
    """What a profile holds once the stage is done.

    `measured`, `failed` and `drifted` count subnets: those with a figure to rely on, those without
    any, and those whose figures are all marked. `last_error` is what befell one that failed.
    `fastest_ms` and `slowest_ms` are of those to rely on; None where there are none.

    `error_percent` is the cross-validated error of a latency predictor on it, and `stopped_by` is
    why no more was measured; None where no error was asked for, or where there are too few
    measurements to fit one.
    """

    target: Target
    file: Path
    measured: int
    failed: int
    last_error: str | None
    drifted: int
    noise_floor_percent: float | None
    fastest_ms: float | None
    slowest_ms: float | None
    error_percent: float | None = None
    stopped_by: StoppedBy | None = None


def profile_supernet(
    supernet: Supernet,
    *,
    target: Target,
    workspace: Workspace,
    samples: int = DEFAULT_SAMPLES,
    subnets: Sequence[SubnetConfig] | None = None,
    goal: Goal | None = None,
    settings: SessionSettings | None = None,
    seed: int = 0,
    allow_stale: bool = False,
    progress: Progress | None = None,
) -> ProfileSummary:
    """Measure a stratified sample of subnets, then a part of it again for the noise floor.

    With a goal, more subnets are measured, those that teach a latency predictor most, until it
    reaches the goal. What the profile already holds is not measured again, so an interrupted run
    goes on. Two runs of this stage on one target would disturb each other: the second waits, and
    finds what the first one has measured.

    Args:
        supernet: whose subnets are measured.
        target: where and how they run.
        workspace: the profile is written into its `profiles`.
        samples: how many distinct subnets the sample has. Up to 128, more of them than before keep
            those that are measured already (beyond, see `stratified_sample`).
        subnets: measure these in place of a sample; the first quarter of them twice.
        goal: when to stop measuring further ones; None measures no others. With a goal, the sample
            has no more than its most, and as many as a predictor needs at least.
        settings: how carefully to measure.
        seed: chooses the subnets.
        allow_stale: add to a profile that was begun under other versions.
        progress: who shows the subnets.

    Raises:
        ProfileError: the profile is damaged, stale, or the reference can't be run, or nothing could
            be measured.
        DeviceError: the target can't run files.
    """
    progress = progress or SilentProgress()
    store = ProfileStore(workspace.profiles, target, allow_stale=allow_stale)
    stopwatch = Stopwatch(supernet, store, settings or SessionSettings(seed=seed), progress)
    drawn = subnets is None
    if subnets is None:
        count = max(min(samples, goal.max_samples), MIN_SAMPLES) if goal else samples
        subnets = stratified_sample(supernet.space, supernet.geometry, count, seed=seed)
    sample = list(dict.fromkeys(subnets))
    error, stopped_by = None, None
    busy = goal is not None or any(
        find(sample, stopwatch.profile) for find in (_missing, _to_repeat)
    )
    with _one_at_a_time(store, progress) if busy else nullcontext():
        # Whoever was waited for may have begun the profile under other versions.
        ProfileStore(workspace.profiles, target, allow_stale=allow_stale)
        _measure_twice(stopwatch, sample, drawn=drawn)
        if goal is not None:
            error, stopped_by = _measure_until(goal, supernet, stopwatch, sample, seed=seed)
        _corrected(supernet, store)
    summary = summarise_profile(supernet, store)
    if not summary.measured and not summary.drifted:
        raise ProfileError(stopwatch.profile.why_empty(supernet.id, target))
    return replace(summary, error_percent=error, stopped_by=stopped_by)


@contextmanager
def _one_at_a_time(store: ProfileStore, progress: Progress) -> Iterator[None]:
    store.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.folder / ".measuring")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.log(f"Another process measures into {store.folder}: this one waits for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _corrected(supernet: Supernet, store: ProfileStore) -> Profile:
    """The profile, with corrections that are learnt from all that it holds."""
    return store.learn_corrections(
        supernet.id,
        lambda profile: learn_session_errors(
            profile.measurements, _expected_ms(fitted(supernet, store.target, profile))
        ),
    )


def _measure_twice(stopwatch: Stopwatch, wanted: Sequence[SubnetConfig], *, drawn: bool) -> None:
    """Measure subnets, and when all are through, a part of them on another occasion.

    What was too restless to trust gets another chance; what failed gets none before the next run:
    a subnet that hangs would cost its deadline each time. On a GPU, where nothing keeps a group
    within the memory, those of a group that failed otherwise are timed alone.
    """
    for repeat, find_missing in enumerate((_missing, _to_repeat)):
        failed: dict[str, str] = {}
        for attempt in range(ATTEMPTS):
            found = find_missing(wanted, stopwatch.profile)
            missing = [config for config in found if config.id not in failed]
            if not missing:
                break
            if attempt:
                stopwatch.progress.log(f"Once more, since they were marked: {len(missing)}.")
            elif repeat:
                stopwatch.progress.log(f"On another occasion, for the noise floor: {len(missing)}.")
            measured = stopwatch.measure_all(missing, repeat=repeat, drawn=drawn)
            failed |= {row.subnet_id: row.error for row in measured if row.error is not None}
        if is_on_gpu(stopwatch.store.target) and stopwatch.settings.group_size > 1:
            crowded = [c for c in wanted if c.id in failed and not is_hang(failed[c.id])]
            stopwatch.one_by_one.measure_all(crowded, repeat=repeat, drawn=drawn)


def _measure_until(
    goal: Goal,
    supernet: Supernet,
    stopwatch: Stopwatch,
    sample: Sequence[SubnetConfig],
    *,
    seed: int,
) -> tuple[float, StoppedBy] | tuple[None, None]:
    """Measure group after group; the error that was reached in percent, and why it stopped there.

    The first group is what an earlier run tried beside the sample, and couldn't time or trust.
    Errors and the noise floor are of latencies as they are told afterwards: corrected by what each
    group newly shows.
    """
    progress = stopwatch.progress
    untimed = _untimed(stopwatch.profile, besides=sample)
    while True:
        profile = _corrected(supernet, stopwatch.store)
        predictor = fitted(supernet, stopwatch.store.target, profile)
        if predictor is None:
            progress.log("Too few subnets could be measured for a latency predictor.")
            return None, None
        now = standing(predictor, profile)
        progress.log(f"{now}.")
        stopped_by = now.reached(goal)
        if stopped_by is not None:
            return now.error_percent, stopped_by
        if untimed:
            _measure_twice(stopwatch, untimed, drawn=False)
            untimed = []
            continue
        tried = [measurement.subnet_id for measurement in profile.measurements]
        room = goal.max_samples - len(set(tried))
        if room <= 0:
            return now.error_percent, "most samples"
        chosen = most_telling(
            supernet,
            predictor,
            min(stopwatch.settings.group_size, room),
            tried=tried,
            near_ms=goal.near_ms,
            seed=seed,
        )
        if not chosen:  # of a small space
            return now.error_percent, "all measured"
        _measure_twice(stopwatch, chosen, drawn=False)


def _expected_ms(predictor: LatencyPredictor | None) -> dict[str, float]:
    """Each fitted subnet's latency by its id, from models that had not seen it."""
    if predictor is None:
        return {}
    expected_ms = predictor.out_of_fold_ms().tolist()
    return {c.id: ms for c, ms in zip(predictor.configs_, expected_ms, strict=True)}


def summarise_profile(supernet: Supernet, store: ProfileStore) -> ProfileSummary:
    """Count what a profile holds."""
    profile = store.read(supernet.id)
    _, latencies = profile.latencies()
    timed = {row.subnet_id for row in profile.measurements if row.error is None}
    return ProfileSummary(
        target=store.target,
        file=store.measurements_file(supernet.id),
        measured=len(latencies),
        failed=len(profile.failed),
        last_error=profile.last_error,
        drifted=len(timed - profile.measured_ids),
        noise_floor_percent=noise_floor(profile.measurements),
        fastest_ms=min(latencies, default=None),
        slowest_ms=max(latencies, default=None),
    )


def _untimed(profile: Profile, *, besides: Sequence[SubnetConfig]) -> list[SubnetConfig]:
    """Subnets that an earlier run tried, and of which it has no figure to rely on."""
    known = profile.measured_ids | {config.id for config in besides}
    tried = dict.fromkeys(row.subnet for row in profile.measurements)
    return [config for config in tried if config.id not in known]


def _missing(wanted: Sequence[SubnetConfig], profile: Profile) -> list[SubnetConfig]:
    """Those without a usable measurement; what failed before or drifted is tried again."""
    return [config for config in wanted if config.id not in profile.measured_ids]


def _to_repeat(wanted: Sequence[SubnetConfig], profile: Profile) -> list[SubnetConfig]:
    """The first, which in a sample cover the sizes as all do, unless measured twice already."""
    count = max(MIN_REPEATED, round(REPEATED_SHARE * len(wanted)))
    repeated = {
        m.subnet_id for m in profile.measurements if m.repeat and m.error is None and not m.drifted
    }
    return [
        config
        for config in wanted[:count]
        if config.id in profile.measured_ids and config.id not in repeated
    ]
