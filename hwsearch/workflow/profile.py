"""The stage that measures: a supernet's subnets on a target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwsearch.profiler.noise import noise_floor
from hwsearch.profiler.sampling import stratified_sample
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import Profile, ProfileStore
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import SubnetConfig, Target
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.timing import ATTEMPTS, Stopwatch
from hwsearch.workflow.workspace import Workspace

DEFAULT_SAMPLES = 32
REPEATED_SHARE = 0.25
MIN_REPEATED = 4


@dataclass(frozen=True)
class ProfileSummary:
    """What a profile holds once the stage is done."""

    target: Target
    file: Path
    measured: int
    failed: int
    drifted: int
    noise_floor_percent: float | None
    fastest_ms: float
    slowest_ms: float


def profile_supernet(
    supernet: Supernet,
    *,
    target: Target,
    workspace: Workspace,
    samples: int = DEFAULT_SAMPLES,
    settings: SessionSettings | None = None,
    seed: int = 0,
    allow_stale: bool = False,
    progress: Progress | None = None,
) -> ProfileSummary:
    """Measure a stratified sample of subnets, then a part of it again for the noise floor.

    What the profile already holds is not measured again, so an interrupted run goes on.

    Args:
        supernet: whose subnets are measured.
        target: where and how they run.
        workspace: the profile is written into its `profiles`.
        samples: how many distinct subnets the profile shall hold at least.
        settings: how carefully to measure.
        seed: chooses the subnets.
        allow_stale: add to a profile that was begun under other versions.
        progress: who shows the subnets.

    Raises:
        ProfileError: the profile is damaged, stale, or the reference can't be run.
        DeviceError: the target can't run files.
    """
    progress = progress or SilentProgress()
    store = ProfileStore(workspace.profiles, target, allow_stale=allow_stale)
    stopwatch = Stopwatch(supernet, store, settings or SessionSettings(seed=seed), progress)
    wanted = stratified_sample(supernet.space, supernet.geometry, samples, seed=seed)
    for repeat, find_missing in enumerate((_missing, _to_repeat)):
        for _ in range(ATTEMPTS):
            missing = find_missing(wanted, stopwatch.profile)
            if not missing:
                break
            stopwatch.measure_all(missing, repeat=repeat)
    return summarise_profile(supernet, store)


def summarise_profile(supernet: Supernet, store: ProfileStore) -> ProfileSummary:
    """Count what a profile holds."""
    profile = store.read(supernet.id)
    _, latencies = profile.latencies()
    return ProfileSummary(
        target=store.target,
        file=store.measurements_file(supernet.id),
        measured=len(latencies),
        failed=len(profile.failed),
        drifted=sum(measurement.drifted for measurement in profile.measurements),
        noise_floor_percent=noise_floor(profile.measurements),
        fastest_ms=min(latencies, default=0.0),
        slowest_ms=max(latencies, default=0.0),
    )


def _missing(wanted: list[SubnetConfig], profile: Profile) -> list[SubnetConfig]:
    """Those without a usable measurement; what failed before or drifted is tried again."""
    return [config for config in wanted if config.id not in profile.measured_ids]


def _to_repeat(wanted: list[SubnetConfig], profile: Profile) -> list[SubnetConfig]:
    """Every k-th of the sample, extremes in, that was not measured a second time yet."""
    count = min(len(wanted), max(MIN_REPEATED, round(REPEATED_SHARE * len(wanted))))
    chosen = [wanted[place * len(wanted) // count] for place in range(count)]
    repeated = {
        m.subnet_id for m in profile.measurements if m.repeat and m.error is None and not m.drifted
    }
    return [
        config
        for config in chosen
        if config.id in profile.measured_ids and config.id not in repeated
    ]
