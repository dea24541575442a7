"""`hwsearch report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.options import JsonOption, WorkspaceOption, print_result


def report(
    *,
    study: Annotated[str, typer.Option(help="Name of a finished study.")],
    workspace: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write the page of a finished study again.

    [bold]Example:[/bold] hwsearch report --study vit_b-supernet-coco-900ms
    """
    from hwsearch.supernet.store import load_manifest
    from hwsearch.workflow.report import result_summary, summary_lines, write_study_report
    from hwsearch.workflow.search import load_study
    from hwsearch.workflow.workspace import Workspace

    place = Workspace(workspace)
    result = load_study(place, study).result
    bundle = place.study(study) / "bundle"
    page = write_study_report(
        place,
        study,
        geometry=load_manifest(result.supernet).geometry,
        overlays=sorted((place.study(study) / "overlays").glob("*.png")),
    )
    print_result(
        result_summary(result, bundle=bundle if bundle.exists() else None, report=page),
        as_json=as_json,
        lines=[*summary_lines(result), f"Report: {page}"],
    )
