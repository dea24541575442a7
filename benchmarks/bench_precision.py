"""What lower precisions cost in accuracy, and which step of the ladder they need.

    python benchmarks/bench_precision.py [--supernet demo] [--data scenes] [--json]

Encoder and decoder of the largest and the smallest subnet, in fp16, bf16 and int8 against fp32, on
images that int8 was not calibrated on. Prompts are ground-truth boxes, their centres, and both; all
masks count. Where TensorRT-RTX is installed, every file also has to pass its strongly typed parser.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import DeviceError, HwsearchError
from hwsearch.export.gate import Probe
from hwsearch.export.manifest import Precision, PrecisionPlan
from hwsearch.export.parity import preprocessing_of
from hwsearch.export.precision import PrecisionOptions, choose_precision
from hwsearch.profiler.conditions import capture_conditions
from hwsearch.records import SubnetConfig
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.tensorrt import TensorRT, load_tensorrt, parse_fault
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import SearchData, search_data

PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "int8")


def main(
    *,
    supernet: Annotated[str, typer.Option(help="A supernet directory, or demo.")] = "demo",
    data: Annotated[str, typer.Option(help="A data folder, or scenes.")] = "scenes",
    images: Annotated[int, typer.Option(help="To judge on, and to calibrate on.")] = 16,
    threads: Annotated[int, typer.Option(help="Of ONNX Runtime.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Judge each precision of the largest and the smallest subnet."""
    loaded = load_supernet(supernet)
    seen = search_data(data, framing=load_manifest(supernet).framing, max_views=images)
    subnets = {"largest": loaded.space.largest, "smallest": loaded.space.smallest}
    trt = _tensorrt()
    rows: list[dict[str, object]] = []
    with RichProgress() as progress:
        for name, config in subnets.items():
            for precision in PRECISIONS:
                with tempfile.TemporaryDirectory() as folder:
                    plan = _plan(
                        Path(folder), loaded, config, precision, seen=seen, threads=threads
                    )
                    faults = _faults(Path(folder), trt)
                progress.log(f"{name}, {precision}: {plan.encoder.step}; {plan.decoder.step}")
                rows.append({"subnet": name, **_row(plan), "parser_faults": faults})
    found = {
        "supernet": loaded.id,
        "data": data,
        "parser": f"{trt.flavour} {trt.version}" if trt else None,
        "rows": rows,
        "conditions": capture_conditions().model_dump(),
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for row in rows:
        print(
            f"{row['subnet']:<9} {row['precision']:<5} mask IoU {row['mask_iou_mean']:.4f} "
            f"(least {row['mask_iou_min']:.3f}), cosine {row['embedding_cosine_min']:.5f}; "
            f"encoder {row['encoder']}, decoder {row['decoder']}"
        )


def _plan(
    folder: Path,
    supernet: Supernet,
    config: SubnetConfig,
    precision: Precision,
    *,
    seen: SearchData,
    threads: int,
) -> PrecisionPlan:
    sam = supernet.extract(config)
    export_encoder(sam, folder / "encoder.onnx")
    export_decoder(sam, folder / "decoder.onnx")
    options = PrecisionOptions(
        precision=precision,
        probes=[Probe(view.image, view.boxes) for view in seen.final.views],
        calibration=[Probe(view.image, view.boxes) for view in seen.search.views],
    )
    return choose_precision(folder, how=preprocessing_of(sam), options=options, threads=threads)


def _row(plan: PrecisionPlan) -> dict[str, object]:
    return {
        "precision": plan.asked,
        "encoder": plan.encoder.step,
        "decoder": plan.decoder.step,
        **plan.parity.model_dump(),
        "judge": plan.judge,
    }


def _tensorrt() -> TensorRT | None:
    try:
        return load_tensorrt(prefer="tensorrt-rtx")
    except DeviceError:
        return None


def _faults(folder: Path, trt: TensorRT | None) -> list[str] | None:
    if trt is None:
        return None
    faults = [parse_fault(path, trt=trt) for path in sorted(folder.glob("*.onnx"))]
    return [fault for fault in faults if fault]


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
