"""`hwsearch search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwsearch.cli.options import (
    BatchOption,
    DeviceOption,
    FramingOption,
    JsonOption,
    RuntimeOption,
    SeedOption,
    StaleOption,
    SupernetOption,
    TargetWords,
    ThreadsOption,
    WorkspaceOption,
    parse_framing,
    parse_latency,
    parse_target,
    print_result,
)
from hwsearch.errors import InfeasibleError, UsageError

if TYPE_CHECKING:
    from hwsearch.workflow.targets import SearchTarget
    from hwsearch.workflow.workspace import Workspace


def search(
    *,
    target_latency: Annotated[
        str | None,
        typer.Option(help="Most that a pick may take on --device: 40ms, 1.5s or milliseconds."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A target and the most that a pick may take there, such as cpu=40ms, "
            "cpu:threads=1,runtime=openvino=60ms, or a profiled target's folder: FOLDER=8ms. "
            "Repeat it for one subnet that meets all."
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="'scenes' or a data folder.")],
    supernet: SupernetOption = "demo",
    device: DeviceOption = "cpu",
    runtime: RuntimeOption = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="What the runtime computes in, fp32 unless a target says otherwise. Repeat it to "
            "search over precisions too."
        ),
    ] = None,
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
    evaluate_on: Annotated[
        str,
        typer.Option(
            help="What torch finds accuracies in fp32 on: cpu, cuda, cuda:N or mps. Other "
            "precisions run in their runtime, where it runs."
        ),
    ] = "cpu",
    workspace: WorkspaceOption = Path(),
    seed: SeedOption = 0,
    allow_stale: StaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the most accurate subnets that meet one latency or several, and measure them.

    Profiles and fits first where that is lacking. A subnet counts as fitting only if the upper
    bound of its predicted latency does, and what is reported was measured again. In a precision
    other than fp32, accuracy is that of the files in their runtime. Exits with 3 if nothing meets
    the targets, and says which choice of the search space binds.

    [bold]Example:[/bold] hwsearch search --target-latency 900ms --supernet vit_b-supernet
    --data coco
    [bold]Example:[/bold] hwsearch search --target cpu=900ms --target cpu:threads=1=1.5s
    --precision fp32 --precision int8 --supernet vit_b-supernet --data coco
    """
    wanted = _wanted(target_latency, target or [], device, runtime, threads)
    precisions = _precisions(wanted, precision)  # before anything slow is imported

    from hwsearch.cli.progress import RichProgress
    from hwsearch.supernet.store import load_manifest, load_supernet
    from hwsearch.workflow.prepare import SearchRequest
    from hwsearch.workflow.report import (
        candidate_summary,
        result_summary,
        summary_lines,
        write_study_report,
    )
    from hwsearch.workflow.search import search_subnets
    from hwsearch.workflow.workspace import Workspace, default_study_name

    place = Workspace(workspace)
    manifest = load_manifest(supernet)
    targets = tuple(
        _search_target(
            words,
            precisions,
            batch=batch,
            workspace=place,
            supernet_id=manifest.geometry.id,
        )
        for words in wanted
    )
    loaded = load_supernet(supernet)
    request = SearchRequest(
        supernet_name=supernet,
        targets=targets,
        data=data,
        framing=parse_framing(framing, manifest.framing),
        study=study
        or default_study_name(supernet, data, [told(w, batch) for w in wanted], precisions or ()),
        storage=storage,
        trials=trials,
        samples=samples,
        max_views=max_views,
        seed=seed,
        workers=workers,
        evaluate_on=evaluate_on,
        allow_stale=allow_stale,
    )
    with RichProgress() as progress:
        try:
            result = search_subnets(loaded, request, workspace=place, progress=progress)
        except InfeasibleError as error:
            print_result({"infeasible": error.details}, as_json=as_json, lines=[])
            raise
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


def told(words: TargetWords, batch: int) -> str:
    """A target in a study's name: its latency, behind what it has of its own."""
    own = [
        "" if words.name == "cpu" else words.name,
        words.runtime or "",
        words.precision or "",
        "" if words.threads is None else f"t{words.threads}",
        "" if batch == 1 else f"b{batch}",
        f"{words.latency_ms:g}ms",
    ]
    return "-".join(filter(None, own))


def _wanted(
    target_latency: str | None,
    targets: list[str],
    device: str,
    runtime: str | None,
    threads: int | None,
) -> list[TargetWords]:
    if target_latency is not None and targets:
        raise UsageError(
            "--target-latency is short for one target: give either it or --target, and of several "
            "targets each as --target."
        )
    if target_latency is not None:
        latency_ms = parse_latency(target_latency)
        return [TargetWords(device, latency_ms, runtime=runtime, threads=threads)]
    if not targets:
        raise UsageError(
            "A search needs a latency to meet: give --target-latency 40ms, or --target cpu=40ms."
        )
    if device != "cpu" or runtime is not None or threads is not None:
        raise UsageError(
            "--device, --runtime and --threads belong to --target-latency: say it in --target, "
            "such as --target cpu:threads=1,runtime=onnxruntime=40ms."
        )
    return [parse_target(text) for text in targets]


def _precisions(wanted: list[TargetWords], given: list[str] | None) -> list[str] | None:
    """Those of the search; None where the targets name their own, or nothing was said."""
    named = [words for words in wanted if words.precision is not None]
    if given and named:
        raise UsageError(
            f"Target {named[0].name} names its precision: leave --precision out, or give it "
            "instead for all targets."
        )
    return given or None


def _search_target(
    words: TargetWords,
    precisions: list[str] | None,
    *,
    batch: int,
    workspace: Workspace,
    supernet_id: str,
) -> SearchTarget:
    from hwsearch.workflow.targets import target_here, target_of_workspace

    if words.is_device:
        return target_here(
            latency_ms=words.latency_ms,
            device=words.name,
            runtime=words.runtime,
            precisions=precisions or [words.precision or "fp32"],
            threads=words.threads,
            batch=batch,
        )
    return target_of_workspace(
        words.name,
        latency_ms=words.latency_ms,
        workspace=workspace,
        supernet_id=supernet_id,
        precisions=precisions,
    )
