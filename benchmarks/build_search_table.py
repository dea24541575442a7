"""Every member of a restricted space with its accuracy and its latency, as a table to search.

    python benchmarks/build_search_table.py --work DIR [--stage accuracy --jobs 2]
    python benchmarks/build_search_table.py --work DIR --stage latency --stage table

Accuracies are judged on composed scenes, split val, which anybody can compose; latencies are
measured by the profiler. What is under --work is not made again, so that the same command goes on
after a stop. Nothing else may run while latencies are measured.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.profiler.session import SessionSettings
from hwsearch.runtime.devices import resolve_target
from hwsearch.supernet.store import load_manifest
from search_study.making import SEED, Making, assemble, judge_members, time_members
from search_study.restricted import GROUPS, restricted_space
from search_study.table import save_table

STAGES = ("accuracy", "latency", "table")
TABLE = Path(__file__).parent / "tables" / "demo.json.gz"


def main(
    *,
    work: Annotated[Path, typer.Option(help="Where accuracies and measurements are kept.")],
    supernet: Annotated[str, typer.Option(help="A supernet's directory, or 'demo'.")] = "demo",
    data: Annotated[str, typer.Option(help="'scenes' or a data folder.")] = "scenes",
    stage: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(STAGES)}; all by default.")
    ] = None,
    views: Annotated[
        int, typer.Option(min=1, help="Images or objects that an accuracy is found on.")
    ] = 96,
    groups: Annotated[int, typer.Option(help="Groups of layers that change together.")] = GROUPS,
    threads: Annotated[int, typer.Option(min=1, help="Threads that latencies are of.")] = 1,
    half_width: Annotated[
        float, typer.Option(help="Half-width of a latency's interval that will do, in percent.")
    ] = 2.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that judge side by side.")] = 1,
    only: Annotated[
        int | None, typer.Option(min=2, help="Try with so many members; no table comes of it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The table.")] = TABLE,
) -> None:
    """Judge and time all members, then write the table."""
    chosen = set(stage or STAGES)
    if chosen - set(STAGES):
        raise UsageError(
            f"There is no stage {min(chosen - set(STAGES))!r}: take of {', '.join(STAGES)}."
        )
    restricted = restricted_space(load_manifest(supernet).space, groups=groups)
    members = tuple(restricted.members())
    if only is not None:
        few = np.random.default_rng(SEED).permutation(len(members))[:only]
        members = tuple(members[place] for place in few)
    progress = RichProgress()
    making = Making(
        supernet=supernet,
        data=data,
        views=views,
        restricted=restricted,
        members=members,
        target=resolve_target(device="cpu", threads=threads),
        work=work,
        progress=progress,
    )
    with progress:
        progress.log(f"{len(members)} members of {restricted.space.size}.")
        if "accuracy" in chosen:
            judge_members(making, jobs=jobs)
        if "latency" in chosen:
            time_members(making, SessionSettings(relative_half_width=half_width / 100, seed=SEED))
        if "table" in chosen and only is None:
            save_table(assemble(making), out)
            progress.log(f"{out}: {out.stat().st_size / 1000:.0f} kB.")


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
