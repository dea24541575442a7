"""`hwsearch scenes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.options import JsonOption, SeedOption, print_result


def scenes(
    *,
    out: Annotated[Path, typer.Option(help="The COCO-format folder to write.")],
    train: Annotated[int, typer.Option(min=0, help="Scenes for training.")] = 200,
    val: Annotated[int, typer.Option(min=0, help="Scenes for validation.")] = 50,
    test: Annotated[int, typer.Option(min=0, help="Scenes for the final figures.")] = 50,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write images with exact masks, composed from photographs.

    Objects are cut from the photographs in the wheels of scikit-image and scikit-learn and laid
    over others. No photograph is used in two splits.

    [bold]Example:[/bold] hwsearch scenes --out my-scenes --train 500
    """
    from hwsearch.cli.progress import RichProgress
    from hwsearch.data.dataset import Split
    from hwsearch.data.scenes.write import write_scenes

    counts: dict[Split, int] = {"train": train, "val": val, "test": test}
    wanted = {split: count for split, count in counts.items() if count}
    with RichProgress() as progress:
        write_scenes(out, counts=wanted, seed=seed, progress=progress)
    print_result(
        {"out": str(out), "images": counts, "seed": seed},
        as_json=as_json,
        lines=[f"Wrote {train} + {val} + {test} scenes (train, val, test) to {out}."],
    )
