"""Subnets exported and timed on a target, into the profile of their supernet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hwsearch.errors import ProfileError
from hwsearch.profiler.session import SessionReport, SessionSettings, Subject, measure
from hwsearch.profiles import Profile, ProfileStore, ReferenceAnchor
from hwsearch.progress import Progress
from hwsearch.records import Measurement, SubnetConfig
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.supernet.supernet import Supernet


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
        self, configs: Sequence[SubnetConfig], *, repeat: int | None = None
    ) -> list[Measurement]:
        """Export subnets, time them in one interleaved session, and store each measurement.

        Args:
            configs: the subnets.
            repeat: which pass over these subnets this is; None to count each subnet's earlier
                measurements.

        Raises:
            ProfileError: the reference can't be run.
        """
        with exported(self.supernet, [*configs, self.reference], self.progress) as subjects:
            return self.time(subjects[:-1], reference=subjects[-1], repeat=repeat)

    def time(
        self, subjects: Sequence[Subject], *, reference: Subject, repeat: int | None = None
    ) -> list[Measurement]:
        """Time files that exist already, and store each measurement."""
        earlier = _successes(self.profile)
        found: list[Measurement] = []

        def keep(measurement: Measurement) -> None:
            number = earlier.get(measurement.subnet_id, 0) if repeat is None else repeat
            numbered = measurement.model_copy(update={"repeat": number})
            self.store.append(numbered)
            found.append(numbered)

        self._session(subjects, reference, keep, repeat or 0)
        return found

    @property
    def reference(self) -> SubnetConfig:
        """All layers at full width, at the lowest resolution: neither the slowest nor a toy."""
        space = self.supernet.space
        return space.largest.model_copy(update={"resolution": space.resolutions[0]})

    def _session(
        self,
        subjects: Sequence[Subject],
        reference: Subject,
        keep: Callable[[Measurement], None],
        repeat: int,
    ) -> SessionReport:
        known = self.store.reference(self.supernet.id)
        report = measure(
            subjects,
            reference=reference,
            target=self.store.target,
            supernet_id=self.supernet.id,
            anchor_ms=known.anchor_ms if known else None,
            settings=self.settings,
            on_measurement=keep,
            repeat=repeat,
            progress=self.progress,
        )
        if known is None and report.anchor_ms is not None:
            anchor = ReferenceAnchor(subnet_id=self.reference.id, anchor_ms=report.anchor_ms)
            self.store.set_reference(self.supernet.id, anchor)
        return report


def latencies_or_error(
    configs: Sequence[SubnetConfig], measurements: Sequence[Measurement]
) -> list[float]:
    """Latencies in the order of `configs`.

    Raises:
        ProfileError: one of them could not be measured.
    """
    found = {measurement.subnet_id: measurement for measurement in measurements}
    for config in configs:
        error = found[config.id].error
        if error is not None:
            raise ProfileError(f"Subnet {config.id} could not be timed: {error}")
    return [found[config.id].latency_ms() for config in configs]


@contextmanager
def exported(
    supernet: Supernet, configs: Sequence[SubnetConfig], progress: Progress
) -> Iterator[list[Subject]]:
    """ONNX files of subnets in a temporary folder, one decoder for each resolution."""
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as name:
        folder = Path(name)
        subjects: dict[SubnetConfig, Subject] = {}
        with progress.task("exporting", len(configs)) as advance:
            for config in configs:
                if config not in subjects:
                    subjects[config] = export_subject(supernet, config, folder)
                advance(1, config.id)
        yield [subjects[config] for config in configs]


def export_subject(supernet: Supernet, config: SubnetConfig, folder: Path) -> Subject:
    """Write a subnet's encoder, and its resolution's decoder unless it is there."""
    sam = supernet.extract(config)
    encoder = folder / f"{config.id}-encoder.onnx"
    decoder = folder / f"decoder-{config.resolution}.onnx"
    export_encoder(sam, encoder, name=config.id)
    if not decoder.exists():
        export_decoder(sam, decoder, name=supernet.id)
    return Subject(subnet=config, encoder=encoder, decoder=decoder)


def _successes(profile: Profile) -> dict[str, int]:
    counts: dict[str, int] = {}
    for measurement in profile.measurements:
        if measurement.error is None:
            counts[measurement.subnet_id] = counts.get(measurement.subnet_id, 0) + 1
    return counts
