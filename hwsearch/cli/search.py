"""`hwsearch search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.options import (
    BatchOption,
    DeviceOption,
    FramingOption,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    SeedOption,
    StaleOption,
    SupernetOption,
    ThreadsOption,
    WorkspaceOption,
    parse_framing,
    parse_latency,
    print_result,
)


def search(
    *,
    target_latency: Annotated[
        str, typer.Option(help="Most that a pick may take: 40ms, 1.5s or milliseconds.")
    ],
    data: Annotated[str, typer.Option(help="'scenes' or a data folder.")],
    supernet: SupernetOption = "demo",
    device: DeviceOption = "cpu",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    batch: BatchOption = 1,
    trials: Annotated[int, typer.Option(min=1, help="Subnets to judge in all.")] = 80,
    samples: Annotated[
        int, typer.Option(min=8, help="Subnets to measure first, if no predictor is there.")
    ] = 32,
    max_views: Annotated[
        int, typer.Option(min=1, help="Images (or objects) that an accuracy is found on.")
    ] = 96,
    framing: FramingOption = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the study; one of this name is continued.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage URL (sqlite:///…, postgresql://…, journal:///FILE), which workers "
            "on other machines can share; default: SQLite in the workspace."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that judge subnets on this machine.")
    ] = 1,
    workspace: WorkspaceOption = Path(),
    seed: SeedOption = 0,
    allow_stale: StaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the most accurate subnets that meet a latency, and measure them.

    Profiles and fits first where that is lacking. A subnet counts as fitting only if the upper
    bound of its predicted latency does, and what is reported was measured again. Exits with 3
    if nothing meets the target.

    [bold]Example:[/bold] hwsearch search --target-latency 900ms --supernet vit_b-supernet
    --data coco
    """
    target_latency_ms = parse_latency(target_latency)  # before anything slow is imported

    from hwsearch.cli.progress import RichProgress
    from hwsearch.runtime.devices import resolve_target
    from hwsearch.supernet.store import load_manifest, load_supernet
    from hwsearch.workflow.report import (
        candidate_summary,
        result_summary,
        summary_lines,
        write_study_report,
    )
    from hwsearch.workflow.search import SearchRequest, search_subnets
    from hwsearch.workflow.workspace import Workspace, default_study_name

    target = resolve_target(
        device=device, runtime=runtime, precision=precision, threads=threads, batch=batch
    )
    place = Workspace(workspace)
    loaded, manifest = load_supernet(supernet), load_manifest(supernet)
    request = SearchRequest(
        supernet_name=supernet,
        target=target,
        target_latency_ms=target_latency_ms,
        data=data,
        framing=parse_framing(framing, manifest.framing),
        study=study or default_study_name(supernet, data, target_latency_ms),
        storage=storage,
        trials=trials,
        samples=samples,
        max_views=max_views,
        seed=seed,
        workers=workers,
        allow_stale=allow_stale,
    )
    with RichProgress() as progress:
        result = search_subnets(loaded, request, workspace=place, progress=progress)
        page = write_study_report(place, result.study, geometry=loaded.geometry, overlays=())
    print_result(
        result_summary(result, bundle=None, report=page)
        | {"front": [candidate_summary(candidate) for candidate in result.front]},
        as_json=as_json,
        lines=[
            *summary_lines(result),
            f"Report: {page}",
            f"Next: hwsearch export --study {result.study} --out BUNDLE",
        ],
    )
