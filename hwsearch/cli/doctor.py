"""`hwsearch doctor`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from hwsearch.cli.options import JsonOption, RuntimeOption, print_result


def doctor(
    *,
    device: Annotated[str, typer.Option("--device", help="The GPU: 'cuda[:N]'.")] = "cuda",
    runtime: RuntimeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a GPU: build, run, check and time a small subnet; the page can go into an issue.

    Exits with 1 where something is missing or wrong.

    [bold]Example:[/bold] hwsearch doctor --device cuda
    """
    from hwsearch.supernet.store import load_supernet
    from hwsearch.workflow.doctor import Finding, examine_device

    marks = {True: "ok", False: "FAILED", None: ""}
    findings: list[Finding] = []
    for finding in examine_device(load_supernet("demo"), device=device, runtime=runtime):
        findings.append(finding)
        if not as_json:  # each as soon as it is there: the next may crash
            typer.echo(f"{finding.title}: {marks[finding.passed]}".rstrip(": "))
            for line in finding.lines:
                typer.echo(f"    {line}")
    if as_json:
        found = [dataclasses.asdict(finding) for finding in findings]
        print_result({"device": device, "findings": found}, as_json=True, lines=[])
    if findings[-1].passed is False:
        raise typer.Exit(1)
