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
from supernet_study.claims import CURVE_SHARES, chosen_in_band, claims, compared_alone, curve
from supernet_study.figures import size_curve, training_curves
from supernet_study.latencies import with_latencies
from supernet_study.ranking import ranking
from supernet_study.runs import fine_tuned_base, round_names, trained_supernet
from supernet_study.study import Row, Study

STAGES = (
    "supernet",
    "baseline",
    "alone",
    "bands",
    "claims",
    "latency",
    "ranking",
    "ablation",
    "figures",
)


def main(
    *,
    start: Annotated[Path, typer.Option(help="The untrained supernet.")],
    checkpoint: Annotated[Path, typer.Option(help="The base model that it was built from.")],
    data: Annotated[list[str], typer.Option(help="'scenes' or a data folder; repeat it.")],
    work: Annotated[Path, typer.Option(help="Checkpoints and results.")],
    stage: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(STAGES)}.")] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(help="Of the supernet and its baselines; once for each round.  [2400]"),
    ] = None,
    learning_rate: Annotated[
        list[float] | None, typer.Option(help="Its peak, once for each round.  [0.0005]")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the first round's batches; each later round has the next.")
    ] = 0,
    images: Annotated[int, typer.Option(min=1, help="Of a step's batch.")] = 8,
    alone: Annotated[
        list[float] | None,
        typer.Option(help="A share of the curve whose subnet is also trained alone.  [0.08, 0.42]"),
    ] = None,
    band: Annotated[
        list[float] | None,
        typer.Option(help=f"Of stage 'bands', so that processes share them.  {list(BANDS)}"),
    ] = None,
    ablation_steps: Annotated[int, typer.Option(help="Of each training of the ablation.")] = 150,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant.")] = 2,
    tuning_steps: Annotated[int, typer.Option(help="Of the ranking's short trainings.")] = 60,
    search_views: Annotated[int, typer.Option(help="Of each set, to choose by.")] = 60,
    proposals: Annotated[
        int,
        typer.Option(min=0, help="Subnets that a size's search adds to its start."),
    ] = Study.proposals,
    finalists: Annotated[
        int, typer.Option(min=1, help="Of all of these, how many all search views compare.")
    ] = Study.finalists,
    final_views: Annotated[int, typer.Option(help="Of each set, to quote.")] = 200,
    outside: Annotated[
        list[str] | None, typer.Option(help="A data folder that no training saw; repeat it.")
    ] = None,
    device: Annotated[str, typer.Option(help="What torch computes on: cpu, cuda …")] = "cpu",
    data_workers: Annotated[
        int,
        typer.Option(min=0, help="Processes that prepare batches; 0: a thread."),
    ] = 0,
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
        rounds=_rounds(steps or [2400], learning_rate or [5e-4], images, seed),
        search_views=search_views,
        final_views=final_views,
        outside=tuple(outside or ()),
        progress=progress,
        proposals=proposals,
        finalists=finalists,
        device=device,
        data_workers=data_workers,
    )
    shares, chosen = _shares(alone or [0.08, 0.42]), stage or STAGES
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
            found["alone"] = compared_alone(study, shares)
        if "bands" in chosen:
            for share in band or BANDS:
                chosen_in_band(study, share)
        if "claims" in chosen:
            found["claims"], found["curve"] = claims(study), curve(study)
        if "latency" in chosen:
            found["claims"] = with_latencies(study, claims(study), threads=threads)
        if "ranking" in chosen:
            found["ranking"] = ranking(study, steps=tuning_steps)
        if "ablation" in chosen:
            found["ablation"] = ablation(study, steps=ablation_steps, seeds=seeds)
        if "figures" in chosen:
            training_curves(
                work / "figures" / "training.png",
                {
                    label: [work / folder / "training.jsonl" for folder in round_names(study, name)]
                    for label, name in (
                        ("base fine-tuned", "base-fine-tuned"),
                        ("supernet", "supernet"),
                    )
                },
            )
            rows = [*claims(study), *compared_alone(study, shares)]
            size_curve(work / "figures" / "size.png", rows, curve(study))
    found["conditions"] = {
        **capture_conditions().model_dump(),
        "device": device,
        "threads": threads,
        "rounds": [asdict(settings) for settings in study.rounds],
        "search_views": search_views,
        "proposals": proposals,
        "finalists": finalists,
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


def _rounds(
    steps: list[int], learning_rates: list[float], images: int, seed: int
) -> tuple[TrainSettings, ...]:
    if len(steps) != len(learning_rates):
        raise UsageError(
            f"{len(steps)} × --steps and {len(learning_rates)} × --learning-rate don't go "
            "together: give both once for each round."
        )
    return tuple(
        TrainSettings(
            steps=count,
            learning_rate=rate,
            validate_every=max(100, count // 600 * 100),
            seed=seed + number,  # other batches in each round
            batch=BatchSettings(images=images),
        )
        for number, (count, rate) in enumerate(zip(steps, learning_rates, strict=True))
    )


def _shares(shares: list[float]) -> list[float]:
    for share in shares:
        if share not in CURVE_SHARES:
            allowed = ", ".join(map(str, CURVE_SHARES))
            raise UsageError(f"The curve has no subnet at share {share}: take of {allowed}.")
    return shares


def _print_tables(found: dict[str, Any]) -> None:
    for row in [row for part in ("claims", "alone", "curve") for row in found.get(part, ())]:
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
