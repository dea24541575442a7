"""What the supernet is worth: the claims table, the ablation, and how well accuracies rank.

    python benchmarks/bench_supernet.py --start SUPERNET --checkpoint base.safetensors \
        --data scenes --data DIR … --work DIR [--stage baseline] [--json]

Every training keeps checkpoints under --work and goes on where it stopped; results that are there
are not made again. Stages can run in processes of their own, side by side.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError
from hwsearch.supernet.training.batches import BatchSettings
from hwsearch.supernet.training.settings import TrainSettings
from supernet_study.ablation import ablation
from supernet_study.claims import chosen_subnets, claims, curve
from supernet_study.figures import size_curve, training_curves
from supernet_study.latencies import with_latencies
from supernet_study.ranking import ranking
from supernet_study.runs import fine_tuned_base, trained_alone, trained_supernet
from supernet_study.study import Row, Study

STAGES = ("supernet", "baseline", "alone", "claims", "latency", "ranking", "ablation", "figures")


def main(
    *,
    start: Annotated[Path, typer.Option(help="The untrained supernet.")],
    checkpoint: Annotated[Path, typer.Option(help="The base model that it was built from.")],
    data: Annotated[list[str], typer.Option(help="'scenes' or a data folder; repeat it.")],
    work: Annotated[Path, typer.Option(help="Checkpoints and results.")],
    stage: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(STAGES)}.")] = None,
    steps: Annotated[int, typer.Option(help="Of the supernet and of its baselines.")] = 2400,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 5e-4,
    alone: Annotated[str, typer.Option(help="Bands also trained alone.")] = "0.5,0.7,0.85",
    ablation_steps: Annotated[int, typer.Option(help="Of each training of the ablation.")] = 150,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant.")] = 2,
    tuning_steps: Annotated[int, typer.Option(help="Of the ranking's short trainings.")] = 60,
    search_views: Annotated[int, typer.Option(help="Of each set, to choose by.")] = 60,
    final_views: Annotated[int, typer.Option(help="Of each set, to quote.")] = 200,
    outside: Annotated[
        list[str] | None, typer.Option(help="A data folder that no training saw; repeat it.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Compare a supernet's subnets with models that were trained by other means."""
    torch.set_num_threads(threads)
    progress = RichProgress()
    study = Study(
        start=start,
        checkpoint=checkpoint,
        data=tuple(data),
        work=work,
        settings=TrainSettings(
            steps=steps,
            learning_rate=learning_rate,
            validate_every=max(100, steps // 600 * 100),
            batch=BatchSettings(),
        ),
        search_views=search_views,
        final_views=final_views,
        outside=tuple(outside or ()),
        progress=progress,
    )
    bands = tuple(float(band) for band in alone.split(",") if band)
    chosen = stage or STAGES
    found: dict[str, Any] = {}
    with progress:
        if "supernet" in chosen:
            trained_supernet(study)
        if "baseline" in chosen:
            fine_tuned_base(study)
        if "alone" in chosen:
            for band in bands:
                trained_alone(study, f"{100 * band:.0f}", chosen_subnets(study)[band])
        if "claims" in chosen:
            found["claims"], found["curve"] = claims(study, alone=bands), curve(study)
        if "latency" in chosen:
            rows = claims(study, alone=bands)
            found["claims"] = with_latencies(study, rows, threads=threads)
        if "ranking" in chosen:
            found["ranking"] = ranking(study, steps=tuning_steps)
        if "ablation" in chosen:
            found["ablation"] = ablation(study, steps=ablation_steps, seeds=seeds)
        if "figures" in chosen:
            training_curves(
                work / "figures" / "training.png",
                {
                    "base fine-tuned": work / "base-fine-tuned" / "training.jsonl",
                    "supernet": work / "supernet" / "training.jsonl",
                },
            )
            size_curve(work / "figures" / "size.png", claims(study, alone=bands), curve(study))
    found["conditions"] = {
        "torch": torch.__version__,
        "threads": threads,
        "steps": steps,
        "images_per_step": study.settings.batch.images,
        "data": [Path(source).name for source in data],
        "prompt": "box",
        "mask": "by predicted IoU",
        "framing": study.framing,
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print_tables(found)


def _print_tables(found: dict[str, Any]) -> None:
    for row in [*found.get("claims", ()), *found.get("curve", ())]:
        print(_claim(row))
    if "ranking" in found:
        print(
            f"Kendall τ of inherited and tuned accuracy: {found['ranking']['kendall_tau']:.3f} "
            f"over {found['ranking']['subnets']} subnets, {found['ranking']['steps']} steps"
        )
    for row in found.get("ablation", ()):
        figures = "  ".join(
            f"{name} {100 * row[name]:.1f} ± {100 * (row[f'{name}_spread'] or 0):.1f}"
            for name in ("largest", "random", "smallest")
        )
        print(f"{row['variant']:<22} {figures}  untrained {100 * row['untrained']:.1f}")


def _claim(row: Row) -> str:
    size = (
        f"{row['params'] / 1e6:5.2f} M {row['macs'] / 1e9:5.2f} GMACs"
        if "params" in row
        else " " * 22
    )
    sets = "  ".join(f"{name} {100 * miou:.1f}" for name, miou in row["sets"].items())
    size += f" {row['latency_ms']:6.2f} ms" if "latency_ms" in row else ""
    return f"{row['model']:<32} {size}  mIoU {100 * row['miou']:.2f}  {sets}"


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
