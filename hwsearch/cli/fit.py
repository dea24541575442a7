"""`hwsearch fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    print_result,
)


def fit(
    *,
    device: DeviceOption,
    supernet: SupernetOption = "demo",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    batch: BatchOption = 1,
    workspace: WorkspaceOption = Path(),
    transfer_from: Annotated[
        Path | None,
        typer.Option(
            "--transfer-from",
            help="Directory of another target's predictor of this supernet: five measured subnets "
            "are then enough.",
        ),
    ] = None,
    seed: SeedOption = 0,
    allow_stale: StaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a latency predictor on a profile, with conformal intervals and a card.

    [bold]Example:[/bold] hwsearch fit --device cpu --supernet vit_b-supernet
    [bold]Example:[/bold] hwsearch fit --device cpu --threads 2 --transfer-from predictors/T/S
    """
    from hwsearch.cli.progress import RichProgress
    from hwsearch.runtime.devices import resolve_target
    from hwsearch.supernet.store import load_manifest
    from hwsearch.workflow.fit import fit_latency_predictor
    from hwsearch.workflow.workspace import Workspace

    target = resolve_target(
        device=device, runtime=runtime, precision=precision, threads=threads, batch=batch
    )
    with RichProgress() as progress:
        predictor, directory = fit_latency_predictor(
            load_manifest(supernet).geometry,
            target=target,
            workspace=Workspace(workspace),
            seed=seed,
            allow_stale=allow_stale,
            transfer_from=transfer_from,
            progress=progress,
        )
    print_result(
        {
            "directory": str(directory),
            "model": predictor.model_name_,
            "samples": len(predictor.configs_),
            "mape_percent": predictor.cv_.mape_percent,
        },
        as_json=as_json,
        lines=[
            f"Fitted '{predictor.model_name_}' on {len(predictor.configs_)} subnets: "
            f"cross-validated error {predictor.cv_.mape_percent:.2f} %.",
            f"Card: {directory / 'CARD.md'}",
        ],
    )
