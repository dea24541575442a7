"""The targets that a search has to meet, found on this machine or in the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from hwsearch.errors import HwsearchError, ProfileError, UsageError
from hwsearch.predictor.store import load_latency_predictor
from hwsearch.profiles import StoredTarget
from hwsearch.records import Precision, Target, short_digest
from hwsearch.runtime.devices import resolve_target
from hwsearch.search.deployments import EXACTNESS
from hwsearch.workflow.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class SearchTarget:
    """Where a pick has to keep to a latency, in each precision that it may have.

    Attributes:
        targets: one for each precision of the search, in the search's order.
        precisions: the precisions of the search.
        latency_ms: the latency that no pick may exceed.
        measured_here: whether this machine can measure it; else the predictor's upper bound judges.
    """

    targets: tuple[Target, ...]
    precisions: tuple[Precision, ...]
    latency_ms: float
    measured_here: bool = True

    def in_precision(self, precision: Precision) -> Target:
        """The target of deployments in this precision."""
        return self.targets[self.precisions.index(precision)]

    @property
    def name(self) -> str:
        """The target's name, with all its precisions."""
        first = self.targets[0]
        words = "+".join(dict.fromkeys(target.precision for target in self.targets))
        return first.name.replace(f"-{first.precision}-t", f"-{words}-t")

    @property
    def fingerprint(self) -> str:
        """That of the target; of several precisions a digest of all."""
        found = [target.fingerprint for target in self.targets]
        return found[0] if len(found) == 1 else short_digest(" ".join(found))


def single_target(target: Target, latency_ms: float) -> SearchTarget:
    """One target of this machine in its own precision."""
    return SearchTarget(targets=(target,), precisions=(target.precision,), latency_ms=latency_ms)


def target_here(
    *,
    latency_ms: float,
    device: str,
    runtime: str | None = None,
    precisions: Sequence[str] = ("fp32",),
    threads: int | None = None,
    batch: int = 1,
) -> SearchTarget:
    """A target of this machine, in each of the precisions; see `resolve_target`.

    Raises:
        UsageError: a word or a number that is not allowed.
        DeviceError: the device or the runtime can't be used here.
    """
    targets = tuple(
        resolve_target(
            device=device, runtime=runtime, precision=precision, threads=threads, batch=batch
        )
        for precision in checked_precisions(precisions)
    )
    return SearchTarget(
        targets=targets,
        precisions=tuple(target.precision for target in targets),
        latency_ms=latency_ms,
    )


def target_of_workspace(
    name: str,
    *,
    latency_ms: float,
    workspace: Workspace,
    supernet_id: str,
    precisions: Sequence[str] | None = None,
) -> SearchTarget:
    """A target that was profiled before, perhaps on another machine, by its folder's name.

    Args:
        name: a folder of the workspace's `profiles` or `predictors`.
        latency_ms: what a pick may take there.
        workspace: holds the folder.
        supernet_id: whose predictor has to be there, where the target is not this machine's.
        precisions: those of the search, each of which needs a folder; None for the folder's own.

    Raises:
        UsageError: there is no such folder, or none of its likes in another precision.
        ProfileError, HwsearchError: its files are damaged.
    """
    own = _stored(name, workspace, supernet_id)
    targets = tuple(
        own
        if precision == own.precision
        else _stored(own.model_copy(update={"precision": precision}).name, workspace, supernet_id)
        for precision in checked_precisions(precisions or (own.precision,))
    )
    here = all(_is_here(target) for target in targets)
    lacking = [
        target.name
        for target in targets
        if not here and not (workspace.predictor(target, supernet_id) / "predictor.json").exists()
    ]
    if lacking:
        raise UsageError(
            f"Target {lacking[0]} can't be measured on this machine, and the workspace "
            f"{workspace.root} has no latency predictor of {supernet_id} for it: fit one where the "
            "device is, and copy its folder."
        )
    return SearchTarget(
        targets=targets,
        precisions=tuple(target.precision for target in targets),
        latency_ms=latency_ms,
        measured_here=here,
    )


def in_order(wanted: Sequence[SearchTarget]) -> tuple[SearchTarget, ...]:
    """The targets, those that can be measured here first; the first is the one of all figures.

    Raises:
        UsageError: there is none, one comes twice, none can be measured here, or a pick can't
            have the same precision on all.
    """
    names = [target.name for target in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Target {name} is given twice: give each target one latency.")
    if not any(target.measured_here for target in wanted):
        raise UsageError(
            "A search has to measure its picks on one target at least, and none of "
            f"{', '.join(names) or 'no targets'} can be measured here: add one of this machine, "
            "such as --target cpu=40ms."
        )
    for target in wanted[1:]:
        if target.precisions != wanted[0].precisions:
            raise UsageError(
                f"Target {wanted[0].name} is in {' and '.join(wanted[0].precisions)}, target "
                f"{target.name} in {' and '.join(target.precisions)}: a pick has one precision on "
                "all targets, so give --precision for all of them, and none in --target."
            )
    return tuple(sorted(wanted, key=lambda target: not target.measured_here))


def ask_for_runtimes(wanted: SearchTarget) -> None:
    """Do nothing if this machine has what accuracies on a target of elsewhere are found with.

    Raises:
        UsageError, DeviceError: it has not; the message says what is lacking.
    """
    for target in wanted.targets:
        if target.precision != "fp32":  # which PyTorch judges
            resolve_target(device=target.device, runtime=target.runtime, precision=target.precision)


def checked_precisions(words: Sequence[str]) -> tuple[Precision, ...]:
    """The precisions, each once, the most exact first whatever order they are given in.

    Raises:
        UsageError: one of them is none.
    """
    known = get_args(Precision)
    for word in words:
        if word not in known:
            raise UsageError(f"There is no precision {word!r}: take {', '.join(known)}.")
    return tuple(precision for precision in EXACTNESS if precision in words)


def _stored(name: str, workspace: Workspace, supernet_id: str) -> Target:
    file = workspace.profiles / name / "target.json"
    if file.exists():
        try:
            return StoredTarget.from_json(file.read_bytes()).target
        except UsageError as error:
            raise ProfileError(f"{file} is damaged: {error}") from None
    predictor = workspace.predictors / name / supernet_id
    if (predictor / "predictor.json").exists():
        return load_latency_predictor(predictor).target
    known = sorted(
        {
            entry.name
            for folder in (workspace.profiles, workspace.predictors)
            if folder.is_dir()
            for entry in folder.iterdir()
            if entry.is_dir()
        }
    )
    raise UsageError(
        f"There is no target {name!r} in {workspace.root}: take cpu, cuda or cuda:N, or "
        + (f"one of {', '.join(known)}." if known else "profile one first.")
    )


def _is_here(target: Target) -> bool:
    """Whether this machine resolves the same words to the very same target."""
    try:
        found = resolve_target(
            device=target.device,
            runtime=target.runtime,
            precision=target.precision,
            threads=None if target.device != "cpu" else target.threads,
            batch=target.batch,
        )
    except HwsearchError:
        return False
    return found == target
