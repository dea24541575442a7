"""The profile store: measurements of one target on disk, a JSON line each, only ever appended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import Field

from hwsearch.drift_share import (
    ALL,
    CORRECTED,
    DriftShare,
    corrected_by,
    learn_drift_share,
    with_group_ms,
)
from hwsearch.errors import ProfileError, UsageError
from hwsearch.files import write_text
from hwsearch.profile_lines import append_line, mend_tail, parse_lines
from hwsearch.records import Measurement, Milliseconds, Record, Scope, SubnetConfig, Target
from hwsearch.session_errors import SessionErrors, freed_of


class ReferenceAnchor(Record):
    """The reference subnet of a profile, and its median latency in the profile's first session.

    Attributes:
        subnet: the reference itself; None in profiles of earlier versions, where it has all layers
            and the lowest resolution.
        drift_share: how much of its drift the other subnets take, as far as repeats tell.
        session_errors: what each session's subnets came out too slow by, as its others tell.
        learnt_from: how many measurements these two were learnt from.
    """

    subnet_id: str
    anchor_ms: Milliseconds
    subnet: SubnetConfig | None = None
    drift_share: DriftShare = ALL
    session_errors: dict[str, dict[str, float]] = Field(default_factory=dict)
    learnt_from: int = 0


class StoredTarget(Record):
    """The content of `target.json`; `references` is by supernet id."""

    schema_version: Literal[1] = 1
    target: Target
    fingerprint: str
    references: dict[str, ReferenceAnchor] = Field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """Measurements of one supernet's subnets on one target, in the order of the file.

    Profiles of one target merge by joining their files' lines. Where a subnet was measured more
    than once, the later measurement stands before the earlier. Latencies are corrected for
    `drift_share` of the drift, and for the errors of their sessions as far as these were learnt.
    """

    measurements: tuple[Measurement, ...] = ()
    drift_share: DriftShare = ALL

    def latencies(
        self, scope: Scope = "full", *, include_drifted: bool = False
    ) -> tuple[list[SubnetConfig], list[float]]:
        """Subnets and their drift-corrected latencies in ms, each subnet once.

        Of each subnet the last successful measurement with repeat 0 counts: repeats serve the
        noise floor and are not averaged in, so that every figure carries the same noise.

        Args:
            scope: which part of the latency.
            include_drifted: take measurements that are marked as not to be trusted, too, of
                subnets that have no other.
        """
        chosen: dict[str, Measurement] = {}
        for measurement in self.measurements:
            if measurement.repeat or not _usable(measurement, include_drifted):
                continue
            before = chosen.get(measurement.subnet_id)
            if before is None or before.drifted or not measurement.drifted:
                chosen[measurement.subnet_id] = measurement
        return (
            [measurement.subnet for measurement in chosen.values()],
            [measurement.latency_ms(scope) for measurement in chosen.values()],
        )

    @cached_property
    def measured_ids(self) -> frozenset[str]:
        """Subnets that need no further measurement: one succeeded and did not drift."""
        return frozenset(m.subnet_id for m in self.measurements if _usable(m, False))

    @cached_property
    def failed(self) -> Mapping[str, str]:
        """The last error of each subnet that never had a latency, by subnet id."""
        timed = {m.subnet_id for m in self.measurements if m.error is None}
        return {
            m.subnet_id: m.error
            for m in self.measurements
            if m.error is not None and m.subnet_id not in timed
        }

    def why_empty(self, supernet_id: str, target: Target) -> str:
        """Why there is no latency, in a sentence."""
        if self.failed:
            return (
                f"None of {len(self.failed)} subnets of {supernet_id} could be measured on "
                f"{target.name}; the last one: {self.last_error}"
            )
        return (
            f"No subnet of {supernet_id} was measured on {target.name} yet: "
            "run 'hwsearch profile' first."
        )

    @property
    def last_error(self) -> str | None:
        """What befell the last one of `failed`."""
        return [*self.failed.values()][-1] if self.failed else None


class ProfileStore:
    """The profiles of one target: `<root>/<target name>/` with one file for each supernet.

    Nothing is written before the first `append` or `agree_on_reference`.

    Args:
        root: the workspace's `profiles` folder.
        target: where the measurements are made or were made.
        allow_stale: accept a store that was made under another fingerprint of this target.

    Raises:
        ProfileError: `target.json` is damaged, or of another fingerprint (for instance another
            version of the runtime).
    """

    def __init__(self, root: Path, target: Target, *, allow_stale: bool = False) -> None:
        self.folder = root / target.name
        self.target = target
        self._target_file = self.folder / "target.json"
        stored = self._stored()
        if stored is not None and stored.fingerprint != target.fingerprint and not allow_stale:
            raise ProfileError(
                f"The profile in {self.folder} was measured under other conditions "
                f"({_difference(stored.target, target)}): measure in another --workspace, or use "
                "it as it is with --allow-stale."
            )

    @property
    def measured_target(self) -> Target:
        """The target as it was when the store was begun, which a stale store's figures are of."""
        stored = self._stored()
        return self.target if stored is None else stored.target

    def append(self, measurement: Measurement) -> None:
        """Add one measurement, in one write that reaches the disk before this returns.

        It is stored as corrected for all of the drift, whatever it was corrected for.

        Raises:
            ProfileError: the line could not be written.
        """
        path = self.measurements_file(measurement.supernet_id)
        line = freed_of(corrected_by(measurement, ALL), {}).to_json().encode() + b"\n"
        with self._lock():
            self._ensure_target()
            try:
                mend_tail(path)
                append_line(path, line)
            except OSError as error:
                raise ProfileError(f"{path} could not be written: {error.strerror}.") from None

    def read(self, supernet_id: str) -> Profile:
        """All measurements of a supernet; an empty profile where there are none.

        All of them are held against one anchor, also lines that were joined from another profile of
        the target, and corrected for what `learn_corrections` found when it was last called. A last
        line that was cut short (the machine went down while it was written) is dropped with a
        warning.

        Raises:
            ProfileError: any other line is damaged, the message has its number; or lines hang on
                different references.
        """
        known = self.reference(supernet_id)
        share = known.drift_share if known else ALL
        errors = known.session_errors if known else {}
        rows = self._held_against_one_anchor(supernet_id, known)
        return Profile(tuple(freed_of(corrected_by(row, share), errors) for row in rows), share)

    def learn_corrections(
        self,
        supernet_id: str,
        session_errors: Callable[[Profile], SessionErrors] = lambda profile: {},
    ) -> Profile:
        """Learn how much of the drift subnets take, and what their sessions add to it.

        What is read hangs on it. Nothing else changes it, so that latencies stay what they are
        while a search adds measurements. Both are stored at once; a profile that is as it was then
        is left alone.

        Args:
            supernet_id: whose profile.
            session_errors: finds what each session's subnets came out too slow by, in a profile
                that is corrected for the drift alone.

        Returns:
            The profile as it is read from now on.

        Raises:
            ProfileError: as `read`.
        """
        known = self.reference(supernet_id)
        rows = self._held_against_one_anchor(supernet_id, known)
        if known is None or known.learnt_from == len(rows):
            return self.read(supernet_id)
        share = learn_drift_share(rows)
        profile = Profile(tuple(corrected_by(row, share) for row in rows), share)
        learnt = {
            "drift_share": share,
            "session_errors": session_errors(profile),
            "learnt_from": len(rows),
        }
        with self._lock():
            self._replace_reference(supernet_id, known.model_copy(update=learnt))
        return self.read(supernet_id)

    def _replace_reference(self, supernet_id: str, reference: ReferenceAnchor) -> None:
        stored = self._ensure_target()
        references = {**stored.references, supernet_id: reference}
        self._write(stored.model_copy(update={"references": references}))

    def _held_against_one_anchor(
        self, supernet_id: str, known: ReferenceAnchor | None
    ) -> list[Measurement]:
        path = self.measurements_file(supernet_id)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
        rows = with_group_ms(parse_lines(content, path))
        drifts = [row.drift for row in rows if row.drift is not None]
        older = known.subnet_id if known and known.subnet is None else None
        if len({drift.reference_id or older for drift in drifts}) > 1:
            raise ProfileError(
                f"The lines of {path} hang on different reference subnets, as where profiles of "
                "two versions were joined: keep those of one."
            )
        anchor_ms = known.anchor_ms if known else next((d.anchor_ms for d in drifts), None)
        return rows if anchor_ms is None else [held_against(row, anchor_ms) for row in rows]

    def reference(self, supernet_id: str) -> ReferenceAnchor | None:
        """The reference of a supernet's profile, if its first session has set one."""
        stored = self._stored()
        return stored.references.get(supernet_id) if stored else None

    def agree_on_reference(self, supernet_id: str, reference: ReferenceAnchor) -> ReferenceAnchor:
        """Set the reference of a supernet's profile, unless another session came first.

        Returns:
            The one that stands, which all latencies hang on.
        """
        with self._lock():
            stored = self._ensure_target()
            old = stored.references.get(supernet_id)
            if old is not None:
                return old
            self._replace_reference(supernet_id, reference)
        return reference

    def measurements_file(self, supernet_id: str) -> Path:
        """Where a supernet's measurements are."""
        return self.folder / f"measurements-{supernet_id}.jsonl"

    def _lock(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")

    def _stored(self) -> StoredTarget | None:
        try:
            return StoredTarget.from_json(self._target_file.read_bytes())
        except FileNotFoundError:
            return None
        except UsageError as error:
            raise ProfileError(
                f"{self._target_file} is damaged: {error} It holds the scale of all latencies: "
                "restore it from a copy, or profile anew in another --workspace."
            ) from None

    def _ensure_target(self) -> StoredTarget:
        stored = self._stored()
        if stored is None:
            stored = StoredTarget(target=self.target, fingerprint=self.target.fingerprint)
            self._write(stored)
        return stored

    def _write(self, stored: StoredTarget) -> None:
        write_text(self._target_file, stored.model_dump_json(indent=2) + "\n")


def held_against(measurement: Measurement, anchor_ms: float) -> Measurement:
    """A measurement's corrected latencies, held against another anchor than its session's."""
    if measurement.drift is None or measurement.drift.anchor_ms == anchor_ms:
        return measurement
    ratio = anchor_ms / measurement.drift.anchor_ms
    corrected = {name: getattr(measurement, name) for name in CORRECTED}
    return measurement.model_copy(
        update={
            **{name: None if ms is None else ratio * ms for name, ms in corrected.items()},
            "drift": measurement.drift.model_copy(update={"anchor_ms": anchor_ms}),
        }
    )


def _usable(measurement: Measurement, include_drifted: bool) -> bool:
    return measurement.error is None and (include_drifted or not measurement.drifted)


def _difference(stored: Target, target: Target) -> str:
    changed = [
        f"{name} {getattr(stored, name)} there, {getattr(target, name)} here"
        for name in Target.model_fields
        if getattr(stored, name) != getattr(target, name)
    ]
    return "; ".join(changed) or "its fingerprint was changed"
