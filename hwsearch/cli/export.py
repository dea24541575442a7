"""`hwsearch export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.options import JsonOption, StaleOption, WorkspaceOption, print_result
from hwsearch.errors import UsageError

FORMATS = ("onnx", "tensorrt")


def export(
    *,
    study: Annotated[str, typer.Option(help="Name of a finished study.")],
    out: Annotated[Path, typer.Option(help="The bundle directory to write.")],
    pick: Annotated[
        int | None,
        typer.Option(help="A subnet of the front, 0 the fastest; default: the study's pick."),
    ] = None,
    formats: Annotated[
        list[str], typer.Option("--format", help="onnx (always written), tensorrt; repeat it.")
    ] = ["onnx"],  # noqa: B006 - typer copies it
    gpu_arch: Annotated[
        list[str] | None,
        typer.Option(help="GPU to build for, such as sm89 (TensorRT-RTX); repeat it."),
    ] = None,
    supernet: Annotated[
        str | None, typer.Option(help="The supernet; default: the one that the study names.")
    ] = None,
    workspace: WorkspaceOption = Path(),
    allow_stale: StaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a chosen subnet as a bundle of ONNX files and TensorRT engines.

    The files pass a parity gate against PyTorch, and the latency in the manifest is measured on
    the very files that are shipped.

    [bold]Example:[/bold] hwsearch export --study vit_b-coco-900ms --format onnx --format tensorrt
    --gpu-arch sm89 --out bundle
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UsageError(f"There is no format {unknown[0]!r}: take {' or '.join(FORMATS)}.")
    if gpu_arch and "tensorrt" not in formats:
        raise UsageError("--gpu-arch is for engines: add --format tensorrt.")

    from hwsearch.cli.progress import RichProgress
    from hwsearch.export.engines import EngineOptions
    from hwsearch.export.manifest import read_manifest
    from hwsearch.supernet.store import load_supernet
    from hwsearch.workflow.export import export_pick
    from hwsearch.workflow.search import load_study
    from hwsearch.workflow.workspace import Workspace

    place = Workspace(workspace)
    name = supernet or load_study(place, study).result.supernet
    archs = tuple(arch.upper() for arch in gpu_arch or ())
    with RichProgress() as progress:
        bundle = export_pick(
            load_supernet(name),
            study,
            workspace=place,
            out=out,
            pick=pick,
            engines=EngineOptions(gpu_archs=archs) if "tensorrt" in formats else None,
            allow_stale=allow_stale,
            progress=progress,
        )
    manifest = read_manifest(bundle)
    if manifest.latency is None or manifest.accuracy is None:
        raise AssertionError("a sealed bundle of a study has its latency and accuracy")
    latency_ms = manifest.latency.latency_ms()
    target_ms = load_study(place, study).result.target_latency_ms
    print_result(
        {
            "bundle": str(bundle),
            "subnet": manifest.subnet.model_dump(),
            "latency_ms": latency_ms,
            "target_latency_ms": target_ms,
            "miou": manifest.accuracy.miou,
            "parity": manifest.parity.model_dump(),
            "files": {file: digest.bytes for file, digest in manifest.files.items()},
        },
        as_json=as_json,
        lines=[
            f"Wrote {bundle}: {', '.join(manifest.files)}.",
            f"{latency_ms:.2f} ms measured on these files, {abs(latency_ms / target_ms - 1):.1%} "
            f"{'over' if latency_ms > target_ms else 'under'} the target of {target_ms:g} ms.",
            f"mIoU {manifest.accuracy.miou:.4f} ({manifest.accuracy.split}); parity with PyTorch: "
            f"mask IoU {manifest.parity.mask_iou_mean:.4f}.",
        ],
    )
