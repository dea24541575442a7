"""Subnets exported and timed on a target, into the profile of their supernet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hwsearch.drift_share import corrected_by
from hwsearch.errors import ProfileError
from hwsearch.predictor.sampling import typical_subnet
from hwsearch.profiler.session import SessionReport, SessionSettings, Subject, measure
from hwsearch.profiler.supervisor import Nursery
from hwsearch.profiles import Profile, ProfileStore, ReferenceAnchor, held_against
from hwsearch.progress import Progress
from hwsearch.records import Drift, Measurement, SubnetConfig
from hwsearch.runtime.gpus import is_on_gpu
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.subjects import as_opened, exported

ATTEMPTS = 3  # what could not be told apart from the machine's unrest gets another chance,
MOST_FAILURES = 2  # and what failed, as where memory was short for a moment, one other
ANOTHER_SPEED = 0.1  # of the reference, against the profile's first session, that is worth a word


@dataclass(frozen=True)
class Stopwatch:
    """Times subnets of one supernet on one target; what it measures is in the store.

    All latencies are held against one reference subnet, so that they compare across sessions.
    """

    supernet: Supernet
    store: ProfileStore
    settings: SessionSettings
    progress: Progress

    @property
    def profile(self) -> Profile:
        """All measurements so far."""
        return self.store.read(self.supernet.id)

    def measure_all(
        self,
        configs: Sequence[SubnetConfig],
        *,
        repeat: int | None = None,
        drawn: bool = False,
    ) -> list[Measurement]:
        """Export subnets, time them in random groups, and store each measurement.

        Each group is exported when its turn comes, so that the disk never holds more than one.
        After each, the log says how it went and how long the others may take.

        Args:
            configs: the subnets.
            repeat: which pass over these subnets this is; None to count each subnet's earlier
                measurements.
            drawn: whether chance put them together, and nobody chose them for what they take.

        Raises:
            ProfileError: the reference can't be run.
        """
        if not configs:
            return []
        order = np.random.default_rng(self.settings.seed).permutation(len(configs))
        size = self.settings.group_size
        found: list[Measurement] = []
        begin = time.monotonic()
        with (
            Nursery.for_target(self.store.target) as nursery,
            self.progress.task("measuring", len(configs)) as advance,
        ):
            for start in range(0, len(configs), size):
                group = [configs[place] for place in order[start : start + size]]
                with self._exported([*group, self.reference]) as subjects:
                    measured, report = self._time(
                        subjects[:-1], subjects[-1], repeat=repeat, drawn=drawn, nursery=nursery
                    )
                found += measured
                advance(len(group))
                seconds = (time.monotonic() - begin) * (len(configs) / len(found) - 1)
                left = f"; about {_duration(seconds)} left" if len(found) < len(configs) else ""
                self.progress.log(
                    f"{len(found)} of {len(configs)} subnets: "
                    f"{', '.join([_describe(report), *self._other_speed(measured)])}{left}."
                )
        return found

    def latencies_ms(self, configs: Sequence[SubnetConfig]) -> list[float]:
        """Measure subnets, once more where one failed or the machine was too restless to trust it.

        What failed is timed alone then, for its group may have been what filled the memory.

        Returns:
            Milliseconds; infinity, and a warning, for what can't be timed, as where a model does
            not fit into the device's memory.

        Raises:
            ProfileError: the reference can't be run.
        """
        rows: dict[str, list[Measurement]] = {config.id: [] for config in configs}
        for _ in range(ATTEMPTS):
            again = [config for config in configs if not _settled(rows[config.id])]
            failed = [config for config in again if _failures(rows[config.id])]
            others = [config for config in again if config not in failed]
            for row in (*self.measure_all(others), *self.one_by_one.measure_all(failed)):
                rows[row.subnet_id].append(row)
        measured = [_latest(rows[config.id]) for config in configs]
        for row in measured:
            if row.error is not None:
                self.progress.log(f"Warning: {_untimed(row)}")
        self._report([row for row in measured if row.error is None])
        return [math.inf if row.error is not None else row.latency_ms() for row in measured]

    def time_files(self, subject: Subject) -> Measurement:
        """Measure the very files of a subject, as often as `latencies_ms` would.

        Raises:
            ProfileError: they, or the reference, can't be run.
        """
        with (
            self._exported([self.reference]) as (reference,),
            as_opened(subject, self.store.target) as files,
        ):
            rows: list[Measurement] = []
            for _ in range(ATTEMPTS):
                if not _settled(rows):
                    # On a GPU a bundle's engine, which takes any number of prompts, is another than
                    # the profile's: its latency is no repeat of the subnet's.
                    kept = not is_on_gpu(self.store.target)
                    rows += self.time([files], reference=reference, kept=kept)
        measurement = _latest(rows)
        if measurement.error is not None:
            raise ProfileError(_untimed(measurement))
        self._report([measurement])
        return measurement

    def time(
        self,
        subjects: Sequence[Subject],
        *,
        reference: Subject,
        repeat: int | None = None,
        kept: bool = True,
    ) -> list[Measurement]:
        """Time files that exist already, and store each measurement if it is to be kept."""
        return self._time(subjects, reference, repeat=repeat, kept=kept)[0]

    def _time(
        self,
        subjects: Sequence[Subject],
        reference: Subject,
        *,
        repeat: int | None,
        drawn: bool = False,
        kept: bool = True,
        nursery: Nursery | None = None,
    ) -> tuple[list[Measurement], SessionReport]:
        profile = self.profile
        earlier = _steady_counts(profile)
        found: list[Measurement] = []
        agreed: ReferenceAnchor | None = None

        def keep(measurement: Measurement) -> None:
            nonlocal agreed
            number = earlier.get(measurement.subnet_id, 0) if repeat is None else repeat
            if measurement.drift is not None:
                agreed = agreed or self._agreed_anchor(measurement.drift, reference.subnet)
                measurement = held_against(measurement, agreed.anchor_ms)
            numbered = measurement.model_copy(update={"repeat": number, "drawn": drawn})
            if kept:
                self.store.append(numbered)
            found.append(corrected_by(numbered, profile.drift_share))

        return found, self._session(subjects, reference, keep, repeat or 0, nursery)

    @property
    def reference(self) -> SubnetConfig:
        """The one that the profile was begun with; in a new one a typical subnet.

        Earlier versions took all layers at the lowest resolution. That one waits for its weights
        more than others do: held against it, the mean of 21 subnets wandered by 1.3 % on one thread
        of ONNX Runtime, against a typical one by 0.8 %.
        """
        space, earlier = self.supernet.space, self._earlier_reference
        known = self.store.reference(self.supernet.id)
        if known is None:
            typical = typical_subnet(space, self.supernet.geometry)
            ids = {row.drift.reference_id for row in self.profile.measurements if row.drift}
            return earlier if None in ids else typical
        first = known.subnet or earlier
        if first.id == known.subnet_id and space.contains(first):
            return first
        raise ProfileError(
            f"The profile of {self.supernet.id} hangs on reference {known.subnet_id}, which is not "
            "in this supernet's search space: use another --workspace."
        )

    @property
    def _earlier_reference(self) -> SubnetConfig:
        space = self.supernet.space
        return space.largest.model_copy(update={"resolution": space.resolutions[0]})

    @property
    def one_by_one(self) -> Stopwatch:
        """One that times each subnet alone with the reference."""
        return replace(self, settings=replace(self.settings, group_size=1))

    def _exported(self, configs: Sequence[SubnetConfig]) -> AbstractContextManager[list[Subject]]:
        kept = {self.reference: self._reference_folder} if is_on_gpu(self.store.target) else {}
        return exported(self.supernet, configs, self.store.target, self.progress, kept=kept)

    @property
    def _reference_folder(self) -> Path:
        """Where the reference's engine stays, on a GPU.

        The same model can become engines of different speed. All latencies are held against the
        reference's, so that it has to be the same engine in all groups and sessions.
        """
        return self.store.folder / "engines" / self.supernet.id

    def _session(
        self,
        subjects: Sequence[Subject],
        reference: Subject,
        keep: Callable[[Measurement], None],
        repeat: int,
        nursery: Nursery | None,
    ) -> SessionReport:
        known = self.store.reference(self.supernet.id)
        return measure(
            subjects,
            reference=reference,
            target=self.store.target,
            supernet_id=self.supernet.id,
            anchor_ms=known.anchor_ms if known else None,
            settings=self.settings,
            on_measurement=keep,
            repeat=repeat,
            progress=self.progress,
            nursery=nursery,
        )

    def _agreed_anchor(self, drift: Drift, reference: SubnetConfig) -> ReferenceAnchor:
        """The profile's anchor: this session's, unless the profile had one.

        The first session's is stored before the first line that hangs on it, since the session may
        be stopped. Where two sessions began an empty profile, one of them was slower.
        """
        mine = ReferenceAnchor(
            subnet_id=reference.id,
            anchor_ms=drift.anchor_ms,
            subnet=None if reference == self._earlier_reference else reference,
        )
        agreed = self.store.agree_on_reference(self.supernet.id, mine)
        if agreed.subnet_id != mine.subnet_id:
            raise ProfileError(
                f"Another session began the profile of {self.supernet.id} with the reference "
                f"{agreed.subnet_id}: run this again."
            )
        return agreed

    def _report(self, measurements: Sequence[Measurement]) -> None:
        drifted = sum(measurement.drifted for measurement in measurements)
        if drifted:
            self.progress.log(
                f"Warning: the machine was too restless in all {ATTEMPTS} attempts to measure "
                f"{drifted} of {len(measurements)} subnets; leave it alone for figures to rely on."
            )
        for speed in self._other_speed(measurements):
            self.progress.log(
                f"Warning: {speed}, and latencies are told in the scale of that session. Where "
                "this machine is another, or will stay as it is now, begin anew in another "
                "--workspace."
            )

    def _other_speed(self, measurements: Sequence[Measurement]) -> list[str]:
        """How the reference stands to its latency at first, where it is far from it; else nothing.

        Both are those of the machine's usual speed in a session. The anchor is that of its best.
        """
        rows = [row for row in self.profile.measurements if row.drift is not None]
        known = [row for row in rows if not row.drifted] or rows
        first_ms = _reference_ms([row for row in known if row.session_id == known[0].session_id])
        ratio = _reference_ms(measurements) / first_ms
        if not abs(ratio - 1) > ANOTHER_SPEED:  # nor where nothing is known
            return []
        return [f"the reference took {ratio:.2f} times what it took in the profile's first session"]


def steady(measurement: Measurement | None) -> bool:
    """Whether a measurement is there, and not marked."""
    return measurement is not None and measurement.error is None and not measurement.drifted


def _steady_counts(profile: Profile) -> dict[str, int]:
    counts: dict[str, int] = {}
    for measurement in profile.measurements:
        if steady(measurement):
            counts[measurement.subnet_id] = counts.get(measurement.subnet_id, 0) + 1
    return counts


def _settled(rows: Sequence[Measurement]) -> bool:
    """Whether a subnet needs no other attempt."""
    return any(map(steady, rows)) or _failures(rows) >= MOST_FAILURES


def _failures(rows: Sequence[Measurement]) -> int:
    return sum(row.error is not None for row in rows)


def _latest(rows: Sequence[Measurement]) -> Measurement:
    """The latest with a latency, if a marked one; where all failed, the latest failure."""
    return ([row for row in rows if row.error is None] or rows)[-1]


def _untimed(measurement: Measurement) -> str:
    return f"Subnet {measurement.subnet_id} could not be timed: {measurement.error}"


def _describe(report: SessionReport) -> str:
    rounds = "/".join(map(str, report.rounds))
    width = "" if report.half_width is None else f"half-width {100 * report.half_width:.1f} %, "
    drift = 100 * max(report.wander, default=0.0)
    faults = [
        f"{count} {word}"
        for count, word in ((report.failed, "failed"), (report.drifted, "marked"))
        if count
    ]
    if report.throttled_by:
        faults.append(f"the GPU's clocks held down by {' and '.join(report.throttled_by)}")
    return ", ".join([f"{rounds} rounds, {width}drift {drift:.0f} %", *faults])


def _reference_ms(measurements: Sequence[Measurement]) -> float:
    """What the reference took beside them; not a number where there are none."""
    found = [row.drift.group_ms or row.drift.around_ms for row in measurements if row.drift]
    return float(np.median(found)) if found else math.nan


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
