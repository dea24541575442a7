"""`hwsearch export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from hwsearch.cli.options import (
    FramingOption,
    JsonOption,
    StaleOption,
    WorkspaceOption,
    parse_bytes,
    parse_framing,
    print_result,
)
from hwsearch.errors import StoppedError, UsageError

if TYPE_CHECKING:
    from hwsearch.export.manifest import BundleManifest, PrecisionPlan
    from hwsearch.runtime.tensorrt_info import EngineInfo

FORMATS = ("onnx", "tensorrt")


def export(
    *,
    out: Annotated[Path, typer.Option(help="The bundle directory to write.")],
    study: Annotated[str | None, typer.Option(help="Name of a finished study.")] = None,
    pick: Annotated[
        int | None,
        typer.Option(help="A subnet of the front, 0 the fastest; default: the study's pick."),
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option(
            help="Without a study: 'largest', 'smallest', a SubnetConfig file or a bundle "
            "that holds it, of --supernet. The bundle then has neither accuracy nor latency."
        ),
    ] = None,
    formats: Annotated[
        list[str], typer.Option("--format", help="onnx (always written), tensorrt; repeat it.")
    ] = ["onnx"],  # noqa: B006 - typer copies it
    precision: Annotated[
        str,
        typer.Option(
            help="Of the engines, and of ONNX files that join the fp32 ones: fp32, fp16, bf16 or "
            "int8. What fails against fp32 on your images is kept in a higher precision."
        ),
    ] = "fp32",
    gpu_arch: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU to build for, such as sm89 (TensorRT-RTX); repeat it. Default: its own set, "
            "Ampere and later."
        ),
    ] = None,
    engine_workspace: Annotated[
        str | None,
        typer.Option(help="The most scratch memory that a layer may use, such as 2GiB."),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            help="File in which TensorRT's builds share what they measured; default: one in "
            "--workspace, named after GPU and version. TensorRT-RTX has none."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="With --subnet: a data folder, or 'scenes', to hold the files against."),
    ] = None,
    framing: FramingOption = None,
    supernet: Annotated[
        str | None, typer.Option(help="The supernet; default: the one that the study names.")
    ] = None,
    workspace: WorkspaceOption = Path(),
    allow_stale: StaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a chosen subnet as a bundle of ONNX files and TensorRT engines.

    The ONNX files pass a parity gate against PyTorch. Of a study's pick, the latency in the
    manifest is measured on the files or engines that are shipped.

    [bold]Example:[/bold] hwsearch export --study vit_b-supernet-coco-900ms --format onnx
    --format tensorrt --precision fp16 --gpu-arch sm86 --gpu-arch sm89 --out bundle
    """
    _check(formats, precision)
    if study and (data or framing):
        raise UsageError("A study knows its data and framing: leave --data and --framing out.")
    engines_only = {
        "--gpu-arch": gpu_arch,
        "--engine-workspace": engine_workspace,
        "--timing-cache": timing_cache,
    }
    given = [name for name, value in engines_only.items() if value]
    if given and "tensorrt" not in formats:
        raise UsageError(f"{given[0]} is for engines: add --format tensorrt.")

    from hwsearch.cli.progress import RichProgress
    from hwsearch.export.engines import EngineOptions
    from hwsearch.export.manifest import Precision, read_manifest
    from hwsearch.supernet.store import load_manifest, load_supernet
    from hwsearch.workflow.export import export_pick, export_subnet
    from hwsearch.workflow.search import load_study
    from hwsearch.workflow.subnets import named_subnet
    from hwsearch.workflow.workspace import Workspace

    engines = None
    if "tensorrt" in formats:
        engines = EngineOptions(
            gpu_archs=tuple(dict.fromkeys(arch.upper() for arch in gpu_arch or ())),
            workspace_bytes=parse_bytes(engine_workspace) if engine_workspace else None,
            timing_cache=timing_cache,
            timing_folder=workspace,
        )
    kind = cast("Precision", precision)
    place = Workspace(workspace)
    target_ms = None
    try:
        with RichProgress() as progress:
            if study and not subnet:
                result = load_study(place, study).result
                target_ms = result.target_latency_ms
                bundle = export_pick(
                    load_supernet(supernet or result.supernet),
                    study,
                    workspace=place,
                    out=out,
                    pick=pick,
                    precision=kind,
                    engines=engines,
                    allow_stale=allow_stale,
                    progress=progress,
                )
            elif subnet and supernet and not study:
                loaded = load_supernet(supernet)
                bundle = export_subnet(
                    loaded,
                    named_subnet(loaded, subnet),
                    out=out,
                    framing=parse_framing(framing, load_manifest(supernet).framing),
                    data=data,
                    precision=kind,
                    engines=engines,
                    progress=progress,
                )
            else:
                raise UsageError(
                    "Say which subnet to export: --study NAME, or --supernet DIR with --subnet "
                    "largest, smallest or a file."
                )
    except KeyboardInterrupt:
        raise StoppedError(f"Stopped; nothing was written to {out}.") from None
    manifest = read_manifest(bundle)
    print_result(
        _as_json(bundle, manifest, target_ms),
        as_json=as_json,
        lines=_lines(bundle, manifest, target_ms),
    )


def _check(formats: list[str], precision: str) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UsageError(f"There is no format {unknown[0]!r}: take {' or '.join(FORMATS)}.")
    from hwsearch.export.manifest import Precision

    precisions = get_args(Precision)
    if precision not in precisions:
        raise UsageError(
            f"There is no precision {precision!r} for engines: take {', '.join(precisions)}."
        )


def _as_json(bundle: Path, manifest: BundleManifest, target_ms: float | None) -> dict[str, Any]:
    plan = manifest.precision
    return {
        "bundle": str(bundle),
        "subnet": manifest.subnet.model_dump(),
        "latency_ms": manifest.latency.latency_ms() if manifest.latency else None,
        "target_latency_ms": target_ms,
        "miou": manifest.accuracy.miou if manifest.accuracy else None,
        "parity": manifest.parity.model_dump(),
        "precision": plan.model_dump(mode="json") if plan else None,
        "engine_parity": (
            manifest.engine_parity.model_dump(mode="json") if manifest.engine_parity else None
        ),
        "engines": [engine.model_dump(mode="json") for engine in manifest.engines],
        "files": {file: digest.bytes for file, digest in manifest.files.items()},
    }


def _lines(bundle: Path, manifest: BundleManifest, target_ms: float | None) -> list[str]:
    lines = [f"Wrote {bundle}: {', '.join(manifest.files)}."]
    if manifest.latency and target_ms:
        latency_ms = manifest.latency.latency_ms()
        lines.append(
            f"{latency_ms:.2f} ms measured on {_timed(manifest)}, "
            f"{abs(latency_ms / target_ms - 1):.1%} "
            f"{'over' if latency_ms > target_ms else 'under'} the target of {target_ms:g} ms."
        )
    parity = f"parity with PyTorch: mask IoU {manifest.parity.mask_iou_mean:.4f}."
    accuracy = manifest.accuracy
    lines.append(
        f"mIoU {accuracy.miou:.4f} ({accuracy.split}); {parity}"
        if accuracy
        else f"Neither timed nor evaluated; {parity}"
    )
    if manifest.precision:
        lines.append(_precision_line(manifest.precision))
    if manifest.engines:
        first = manifest.engines[0]
        lines.append(
            f"Engines by {first.flavour} {first.version} for {_gpus_of(first)}; {_run(manifest)}."
        )
    return lines


def _run(manifest: BundleManifest) -> str:
    """What a GPU has done with the engines."""
    judged = manifest.engine_parity
    if judged:
        return f"on {judged.gpu} their mask IoU with fp32 is {judged.parity.mask_iou_mean:.4f}"
    if _engines_were_timed(manifest):
        return "they were timed, and their masks were not looked at"
    return "they were not run"


def _engines_were_timed(manifest: BundleManifest) -> bool:
    from hwsearch.runtime.gpus import is_on_gpu

    latency = manifest.latency
    return latency is not None and is_on_gpu(latency.target) and bool(manifest.engines)


def _timed(manifest: BundleManifest) -> str:
    """What the latency is that of."""
    from hwsearch.export.manifest import DECODER_FILE, ENCODER_FILE
    from hwsearch.runtime.gpus import is_on_gpu

    if _engines_were_timed(manifest):
        return "the engines"
    if manifest.latency and is_on_gpu(manifest.latency.target):
        return f"{manifest.latency.target.runtime}'s engines of the fp32 files"
    if manifest.encoder_file != ENCODER_FILE:
        return f"{manifest.encoder_file} and {DECODER_FILE}"
    return "the fp32 files"


def _gpus_of(engine: EngineInfo) -> str:
    if engine.gpu_archs:
        return ", ".join(engine.gpu_archs)
    if engine.flavour == "tensorrt-rtx":
        return "its default set of GPUs, Ampere and later"
    return engine.machine.gpu if engine.machine else "this machine's GPU"


def _precision_line(plan: PrecisionPlan) -> str:
    return (
        f"Asked for {plan.asked}: the encoder is {plan.encoder.step}, the decoder "
        f"{plan.decoder.step}; mask IoU with fp32 {plan.parity.mask_iou_mean:.4f} on "
        f"{plan.parity.images} images, least embedding cosine "
        f"{plan.parity.embedding_cosine_min:.5f} ({plan.judge})."
    )
