"""What the supernet is worth: the claims table, the ablation, and how well accuracies rank.

    python benchmarks/bench_supernet.py --start SUPERNET --checkpoint base.safetensors \
        --data scenes --data DIR … --work DIR [--stage baseline] [--json]

Every training keeps checkpoints under --work and goes on where it stopped; results that are there
are not made again. Stages that don't wait for each other can run side by side; two processes never
train the same model.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.profiler.conditions import capture_conditions
from hwsearch.supernet.training.batches import BatchSettings
from hwsearch.supernet.training.settings import TrainSettings
from supernet_study.ablation import FIGURES, ablation
from supernet_study.bands import BANDS
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
    bands, chosen = _bands(alone), stage or STAGES
    unknown = set(chosen) - set(STAGES)
    if unknown:
        raise UsageError(f"There is no stage {min(unknown)!r}: take of {', '.join(STAGES)}.")
    found: dict[str, Any] = {}
    with progress:
        if "supernet" in chosen:
            trained_supernet(study)
        if "baseline" in chosen:
            fine_tuned_base(study)
        if "alone" in chosen:
            for band, config in chosen_subnets(study).items():
                if band in bands:
                    trained_alone(study, f"{100 * band:.0f}", config)
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
        **capture_conditions().model_dump(),
        "threads": threads,
        "settings": asdict(study.settings),
        "search_views": search_views,
        "final_views": final_views,
        "data": [Path(source).name for source in data],
        "prompt": "box",
        "mask": "by predicted IoU",
        "framing": study.framing,
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print_tables(found)


def _bands(text: str) -> tuple[float, ...]:
    for word in filter(None, text.split(",")):
        if word not in map(str, BANDS):
            allowed = ", ".join(map(str, BANDS))
            raise UsageError(f"There is no size band {word!r}: take of {allowed}.")
    return tuple(float(word) for word in filter(None, text.split(",")))


def _print_tables(found: dict[str, Any]) -> None:
    for row in [*found.get("claims", ()), *found.get("curve", ())]:
        print(_claim(row))
    if "ranking" in found:
        ranked = found["ranking"]
        low, high = ranked["kendall_tau_interval"]
        print(
            f"Kendall τ of inherited and tuned accuracy: {ranked['kendall_tau']:.3f} ({low:.2f} … "
            f"{high:.2f}) over {ranked['subnets']} subnets, {ranked['steps']} steps each; of "
            f"parameters {ranked['kendall_tau_of_params']:.3f}, of MACs "
            f"{ranked['kendall_tau_of_macs']:.3f}"
        )
    for row in found.get("ablation", ()):
        figures = "  ".join(_gains(row, figure) for figure in FIGURES)
        print(f"{row['variant']:<22} {figures}  untrained {100 * row['untrained']:.1f}")


def _gains(row: Row, figure: str) -> str:
    text = f"{figure} {100 * row[figure]:.1f}"
    if row["variant"] == row["against"]:
        return f"{text:<24}"
    gains = ", ".join(f"{100 * gain:+.1f}" for gain in row[f"{figure}_gain"])
    return f"{f'{text} ({gains})':<24}"


def _claim(row: Row) -> str:
    size, gain = " " * 22, " " * 24
    if "params" in row:
        size = f"{row['params'] / 1e6:5.2f} M {row['macs'] / 1e9:5.2f} GMACs"
    if "latency_ms" in row:
        size += f" {row['latency_ms']:6.2f} ms"
    if row.get("gain_interval"):
        low, high = row["gain_interval"]
        gain = f" ({100 * row['gain']:+.2f}: {100 * low:+.2f} … {100 * high:+.2f})"
    sets = row["sets"] | row.get("outside", {})
    figures = "  ".join(f"{name} {100 * miou:.1f}" for name, miou in sets.items())
    return f"{row['model']:<32} {size}  mIoU {100 * row['miou']:.2f}{gain}  {figures}"


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
