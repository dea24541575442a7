"""Would racing pay: how many image evaluations it saves in a search, and whether it errs.

    python benchmarks/bench_racing.py --work DIR --predictor FOLDER [--json]

Runs the search's trials on a supernet for real, with every subnet judged on all views, keeps each
view's result under --work, and then races the same subnets in the same order by several rules.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import NonNegativeFloat

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError
from hwsearch.evaluation import EvaluationSet, SamSegmenter
from hwsearch.evaluation.answers import ask
from hwsearch.files import write_text
from hwsearch.predictor.store import load_latency_predictor
from hwsearch.profiler.conditions import capture_conditions
from hwsearch.records import Deployment, Record, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import StudyPlan, TargetLimit
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.workflow.accuracy import accuracy_context, search_data
from search_study.racing import Judgement, race

BATCHES = (8, 16)
CONFIDENCES = (2.5, 3.0, 3.5, 4.0)
COVERAGE = 0.9


class JudgedViews(Record):
    """A line of the work folder: a subnet's sum of IoUs on each view, and the seconds it took."""

    subnet: SubnetConfig
    sums: tuple[NonNegativeFloat, ...]
    seconds: float


def main(
    *,
    work: Annotated[Path, typer.Option(help="Where results are kept.")],
    predictor: Annotated[Path, typer.Option(help="Folder of a fitted latency predictor.")],
    supernet: Annotated[str, typer.Option(help="A supernet directory, or demo.")] = "demo",
    data: Annotated[str, typer.Option(help="A data folder, or scenes.")] = "scenes",
    share: Annotated[float, typer.Option(help="Target, of the largest's latency.")] = 0.6,
    trials: Annotated[int, typer.Option(min=2, help="Subnets to judge.")] = 80,
    views: Annotated[int, typer.Option(min=16, help="To judge each on.")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="Source of all draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Judge the subnets of a search on all views, then race them."""
    work.mkdir(parents=True, exist_ok=True)
    loaded = load_supernet(supernet)
    chosen = search_data(
        data, framing=load_manifest(supernet).framing, max_views=views, seed=seed
    ).search
    latency = load_latency_predictor(predictor)
    limit_ms = share * float(latency.predict([loaded.space.largest])[0])
    bounds = np.cumsum([0, *(len(view.masks) for view in chosen.views)])
    lines = work / f"views-{loaded.weights_digest()}-{chosen.fingerprint}.jsonl"
    known = _known(lines)

    def evaluate(deployment: Deployment) -> float:
        config = deployment.subnet
        if config not in known:
            begin = time.process_time()
            sums = _sums(SamSegmenter(loaded.extract(config)), chosen, bounds)
            row = JudgedViews(subnet=config, sums=sums, seconds=time.process_time() - begin)
            with lines.open("a") as file:
                file.write(row.to_json() + "\n")
            known[config] = row
        return float(sum(known[config].sums) / bounds[-1])

    study = StudyPlan(
        name="racing",
        storage=f"sqlite:///{(work / 'studies.db').resolve()}",
        space=DeploymentSpace(subnets=loaded.space),
        accuracy=accuracy_context(loaded, chosen, "val"),
        targets=[
            TargetLimit(
                name=latency.target.name,
                fingerprint=latency.target.fingerprint,
                latency_ms=limit_ms,
            )
        ],
        cache=work / "accuracies.jsonl",
        seed=seed,
    ).open(
        Objectives(
            evaluate=evaluate,
            predict=lambda asked: latency.predict(_subnets(asked))[:, None],
            upper=lambda asked: latency.upper(_subnets(asked), COVERAGE)[:, None],
            measure=_nothing_is_measured,
            refit=lambda asked, latencies_ms: None,
        )
    )
    with RichProgress() as progress:
        study.run_until(trials, progress=progress)
    judged = [
        Judgement(
            sums=np.array(known[row.deployment.subnet].sums),
            latency_ms=row.predicted_ms[0],
            seconds=known[row.deployment.subnet].seconds,
        )
        for row in study.judged
        if row.deployment.subnet in known
    ]
    rows = [
        {"batch": batch, "confidence": confidence}
        | asdict(race(judged, batch=batch, confidence=confidence, seed=seed))
        for batch in BATCHES
        for confidence in CONFIDENCES
    ]
    found = {
        "supernet": loaded.id,
        "data": data,
        "views": views,
        "subnets": len(judged),
        "target_ms": limit_ms,
        "rows": rows,
        "conditions": capture_conditions().model_dump(),
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(f"{len(judged)} subnets on {views} views, {limit_ms:.2f} ms")
    for row in rows:
        print(
            f"batch {row['batch']:2}, {row['confidence']} errors: "
            f"{row['views_saved_percent']:.1f} % of the views and "
            f"{row['time_saved_percent']:.1f} % of the time saved, {row['wrong']} wrong, "
            f"{row['front_lost']} of the front lost"
        )


def _sums(
    segmenter: SamSegmenter, chosen: EvaluationSet, bounds: NDArray[np.int64]
) -> tuple[float, ...]:
    ious = ask(segmenter, chosen)["box"].selected
    return tuple(float(ious[a:b].sum()) for a, b in itertools.pairwise(bounds))


def _known(lines: Path) -> dict[SubnetConfig, JudgedViews]:
    if not lines.exists():
        return {}
    whole, _, torn = lines.read_text().rpartition("\n")
    if torn:  # the line that a stop left
        write_text(lines, f"{whole}\n" if whole else "")
    rows = [JudgedViews.from_json(line) for line in whole.splitlines()]
    return {row.subnet: row for row in rows}


def _subnets(asked: Sequence[Deployment]) -> list[SubnetConfig]:
    return [deployment.subnet for deployment in asked]


def _nothing_is_measured(asked: Sequence[Deployment]) -> NDArray[np.float64]:
    raise HwsearchError(f"Racing measures no latency, and {len(asked)} were asked for.")


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"bench_racing: {error}")
