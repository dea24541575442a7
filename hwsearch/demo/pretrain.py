"""Train the small SAM that stands in for a pretrained checkpoint.

No pretrained weights can be shipped at this size, so the demo's base model is trained from
scratch on composed scenes and on any data folders that are given:

    python -m hwsearch.demo.pretrain --data DIR --data DIR … --out base.safetensors

Everything after it is what a user of an official checkpoint types: `hwsearch supernet build`,
then `hwsearch supernet train`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from hwsearch.checkpoint import load_checkpoint
from hwsearch.cli.progress import RichProgress
from hwsearch.data.open import open_dataset
from hwsearch.errors import HwsearchError
from hwsearch.files import replace_file
from hwsearch.records import SamGeometry
from hwsearch.sam import build_sam
from hwsearch.space import SearchSpace, default_space
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.rules import alone
from hwsearch.supernet.training.settings import TrainSettings
from hwsearch.supernet.training.train import train
from hwsearch.supernet.training.validation import validation

DEMO_GEOMETRY = SamGeometry(
    model="custom",
    image_size=256,
    patch_size=16,
    embed_dim=192,
    depth=12,
    heads=6,
    mlp_width=768,
    window_size=8,
    global_layers=(2, 5, 8, 11),
    prompt_dim=128,
    decoder_mlp_width=512,
)


def pretrain(
    *,
    data: Annotated[list[str], typer.Option(help="'scenes' or a data folder; repeat it.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write (.safetensors).")],
    start: Annotated[
        Path | None, typer.Option(help="A checkpoint of this script to train further.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 3000,
    learning_rate: Annotated[float, typer.Option(help="Its highest value.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Source of all randomness.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Train the demo's base model; an interrupted run resumes."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    progress = RichProgress()
    sam = build_sam(DEMO_GEOMETRY)
    if start is not None:
        sam, geometry = load_checkpoint(start)
        if geometry != DEMO_GEOMETRY:
            sys.exit(f"Error: {start} is no checkpoint of this script: its geometry differs.")
    model = Supernet(sam, DEMO_GEOMETRY, _largest_alone())
    settings = TrainSettings(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=200,
        distillation=False,
        train_prompt_encoder=True,
        correction_share=0.0,
        seed=seed,
    )
    with progress:
        train(
            model,
            [open_dataset(source, "train") for source in data],
            settings=settings,
            draw_subnets=alone(model.space.largest),
            purpose=f"pretraining from {model.weights_digest()}" if start else "pretraining",
            directory=out.parent / f"{out.stem}-training",
            validate=validation(data, framing="object", max_views=96),
            progress=progress,
        )
    with replace_file(out) as temporary:
        save_file(model.sam.state_dict(), temporary)


def _largest_alone() -> SearchSpace:
    return default_space(
        DEMO_GEOMETRY,
        resolutions=(DEMO_GEOMETRY.image_size,),
        width_ratios=(1.0,),
        head_ratios=(1.0,),
        min_depth=DEMO_GEOMETRY.depth,
    )


if __name__ == "__main__":
    try:
        typer.run(pretrain)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
