"""Measures profiles like those of `profiles/`: the demo's subnets, spread evenly over their sizes.

    python benchmarks/build_reference_profiles.py --workspace DIR [--target onnxruntime-int8-t1]

`hwsearch profile` measures those subnets that tell a latency predictor the most. A predictor is to
be judged on subnets as they come, though; so here, of all subnets of a size, any is taken. What is
measured already is not measured again, so that the same command goes on after a stop. Nothing else
may run meanwhile.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.predictor.sampling import stratified_sample
from hwsearch.profiler.session import SessionSettings
from hwsearch.records import Target
from hwsearch.runtime.devices import resolve_target
from hwsearch.supernet.store import load_supernet
from hwsearch.workflow.profile import profile_supernet
from hwsearch.workflow.workspace import Workspace

TARGETS = ("onnxruntime-fp32-t1", "onnxruntime-fp32-t2", "onnxruntime-int8-t1", "openvino-fp32-t1")
_WORDS = re.compile(r"(?P<runtime>[a-z]+)-(?P<precision>[a-z0-9]+)-t(?P<threads>[1-9][0-9]*)")


def main(
    *,
    workspace: Annotated[Path, typer.Option(help="The profiles go into its 'profiles'.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help=f"RUNTIME-PRECISION-tTHREADS; default: {', '.join(TARGETS)}."),
    ] = None,
    supernet: Annotated[str, typer.Option(help="A supernet's directory, or 'demo'.")] = "demo",
    samples: Annotated[int, typer.Option(min=2, help="Distinct subnets to measure.")] = 208,
    budget: Annotated[float, typer.Option(help="Most seconds of timing for 8 subnets.")] = 40.0,
    seed: Annotated[int, typer.Option(min=0, help="Source of all random draws.")] = 0,
) -> None:
    """Measure one target after the other."""
    targets = [_target(words) for words in target or TARGETS]
    net = load_supernet(supernet)
    subnets = stratified_sample(net.space, net.geometry, samples, seed=seed, neighbours=1)
    progress = RichProgress()
    with progress:
        for one in targets:
            summary = profile_supernet(
                net,
                target=one,
                workspace=Workspace(workspace),
                subnets=subnets,
                settings=SessionSettings(budget_s=budget, seed=seed),
                progress=progress,
            )
            progress.log(
                f"{summary.target.name}: {summary.measured} subnets measured, {summary.drifted} "
                f"marked, {summary.failed} failed."
            )


def _target(words: str) -> Target:
    parts = _WORDS.fullmatch(words)
    if parts is None:
        raise UsageError(f"{words!r} is no target: write one like {TARGETS[0]}.")
    return resolve_target(
        device="cpu",
        runtime=parts["runtime"],
        precision=parts["precision"],
        threads=int(parts["threads"]),
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
