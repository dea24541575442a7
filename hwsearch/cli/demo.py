"""`hwsearch demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.options import JsonOption, SeedOption, ThreadsOption, print_result


def demo(
    *,
    workspace: Annotated[
        Path, typer.Option(help="Folder for everything that the demo writes.")
    ] = Path("demo-workspace"),
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Run all stages on the shipped supernet, on this machine's CPU, in a few minutes.

    Measures subnets, fits a latency predictor, searches for the most accurate subnet within 60 %
    of the largest one's latency, exports it, and writes a page to open.

    [bold]Example:[/bold] hwsearch demo --workspace demo-workspace
    """
    from hwsearch.cli.progress import RichProgress
    from hwsearch.runtime.devices import resolve_target
    from hwsearch.workflow.demo import run_demo
    from hwsearch.workflow.report import result_summary, summary_lines
    from hwsearch.workflow.workspace import Workspace

    target = resolve_target(device="cpu", threads=threads)
    with RichProgress() as progress:
        found = run_demo(target, workspace=Workspace(workspace), seed=seed, progress=progress)
    print_result(
        result_summary(found.search, bundle=found.bundle, report=found.report)
        | {"profiled": found.profiled, "profiled_steady": found.steady},
        as_json=as_json,
        lines=[
            *summary_lines(found.search),
            f"  {found.profiled} subnets measured, {found.steady} of them while the machine kept "
            f"its speed; {found.engine_note}",
            f"Bundle: {found.bundle}",
            f"Masks:  {found.overlays[0].parent}",
            f"Open:   {found.report}",
        ],
    )
