"""`hwsearch profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwsearch.cli.options import (
    BatchOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    SeedOption,
    StaleOption,
    SupernetOption,
    ThreadsOption,
    WorkspaceOption,
    parse_latency,
    parse_percent,
    print_result,
)
from hwsearch.errors import UsageError

if TYPE_CHECKING:
    from hwsearch.workflow.adaptive import Goal
    from hwsearch.workflow.profile import ProfileSummary


def profile(
    *,
    device: DeviceOption,
    supernet: SupernetOption = "demo",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    batch: BatchOption = 1,
    samples: Annotated[int, typer.Option(min=2, help="Distinct subnets to measure.")] = 32,
    until_error: Annotated[
        str | None,
        typer.Option(
            help="Measure on, such as until 2%: until the latency predictor's cross-validated "
            "error is there or at the noise floor."
        ),
    ] = None,
    max_samples: Annotated[int, typer.Option(min=8, help="Most subnets for --until-error.")] = 128,
    target_latency: Annotated[
        str | None,
        typer.Option(help="With --until-error, measure above all near it: 40ms, 1.5s."),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            min=1,
            help="Seconds of timing after which a group of 8 subnets ends, once it had 5 rounds; "
            "120 rounds end it in any case.",
        ),
    ] = 60.0,
    half_width: Annotated[
        float,
        typer.Option(
            min=1e-4,
            help="End a group before, once 95 % intervals reach no further than this share.",
        ),
    ] = 0.01,
    workspace: WorkspaceOption = Path(),
    seed: SeedOption = 0,
    allow_stale: StaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the latency of a supernet's subnets; run it again to go on after an interruption.

    Subnets are exported to ONNX and timed in random interleaved rounds around a reference, so
    that the machine's drift can be taken out; a part is measured twice to know the noise floor.
    Each subnet has a process of its own: one that crashes or hangs is noted, and the others go on.

    [bold]Example:[/bold] hwsearch profile --device cpu --supernet vit_b-supernet --samples 32
    """
    from hwsearch.cli.progress import RichProgress
    from hwsearch.profiler.session import SessionSettings
    from hwsearch.runtime.devices import resolve_target
    from hwsearch.supernet.store import load_supernet
    from hwsearch.workflow.profile import profile_supernet
    from hwsearch.workflow.workspace import Workspace

    goal = _goal(until_error, max_samples, target_latency)
    target = resolve_target(
        device=device, runtime=runtime, precision=precision, threads=threads, batch=batch
    )
    with RichProgress() as progress:
        summary = profile_supernet(
            load_supernet(supernet),
            target=target,
            workspace=Workspace(workspace),
            samples=samples,
            goal=goal,
            settings=SessionSettings(
                budget_s=budget,
                relative_half_width=half_width,
                max_half_width=max(half_width, SessionSettings.max_half_width),
                seed=seed,
            ),
            seed=seed,
            allow_stale=allow_stale,
            progress=progress,
        )
    floor = summary.noise_floor_percent
    print_result(
        {
            "target": target.model_dump(),
            "file": str(summary.file),
            "measured": summary.measured,
            "failed": summary.failed,
            "last_error": summary.last_error,
            "drifted": summary.drifted,
            "noise_floor_percent": floor,
            "fastest_ms": summary.fastest_ms,
            "slowest_ms": summary.slowest_ms,
            "error_percent": summary.error_percent,
            "stopped_by": summary.stopped_by,
        },
        as_json=as_json,
        lines=[
            f"{summary.measured} subnets measured on {target.name}{_range(summary)}.",
            *_advice(summary),
            f"Noise floor: {floor:.2f} %." if floor is not None else "Noise floor: unknown.",
            f"{summary.failed} failed.",
            *([] if summary.last_error is None else [f"The last failure: {summary.last_error}"]),
            *(
                [
                    "Cross-validated error of a latency predictor: "
                    f"{summary.error_percent:.2f} %{_WHY[summary.stopped_by]}."
                ]
                if summary.error_percent is not None and summary.stopped_by is not None
                else []
            ),
            f"Profile: {summary.file}",
        ],
    )


_WHY = {
    "asked error": ", as asked",
    "noise floor": ", at the noise floor",
    "most samples": ": more than asked, but --max-samples subnets were tried",
    "all measured": ": more than asked, but the space has no more subnets",
}


def _range(summary: ProfileSummary) -> str:
    if summary.fastest_ms is None:
        return ""
    return f": {summary.fastest_ms:.2f} to {summary.slowest_ms:.2f} ms"


def _advice(summary: ProfileSummary) -> list[str]:
    """What to do where figures are few, or not to be relied on."""
    from hwsearch.predictor.latency_predictor import MIN_SAMPLES, MIN_TRANSFER_SAMPLES

    found = []
    if summary.drifted:
        found.append(
            f"{summary.drifted} others are marked, since the machine was too restless. The same "
            "command measures those of its sample again: leave the machine alone meanwhile, or "
            "give more --budget."
        )
    if not summary.failed and summary.measured + summary.drifted < MIN_SAMPLES:
        found.append(
            f"A latency predictor takes {MIN_SAMPLES} subnets, or {MIN_TRANSFER_SAMPLES} with "
            "'fit --transfer-from': give more --samples."
        )
    return found


def _goal(until_error: str | None, max_samples: int, target_latency: str | None) -> Goal | None:
    if until_error is None:
        if target_latency is not None:
            raise UsageError(
                "--target-latency says where to measure on, and without --until-error nothing is "
                "measured on: give both, or neither."
            )
        return None
    from hwsearch.workflow.adaptive import Goal

    near = () if target_latency is None else (parse_latency(target_latency),)
    return Goal(parse_percent(until_error), max_samples, near)
