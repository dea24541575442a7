"""`hwsearch supernet build | inspect | train | evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.options import (
    ComputeOption,
    FramingOption,
    JsonOption,
    SeedOption,
    parse_framing,
    parse_list,
    print_result,
)
from hwsearch.errors import UsageError

app = typer.Typer(
    help="Make, train and evaluate a supernet.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command()
def build(
    *,
    checkpoint: Annotated[Path, typer.Option(help="A SAM checkpoint (.pth or .safetensors).")],
    data: Annotated[
        list[str], typer.Option(help="Calibration images: 'scenes' or a data folder; repeat it.")
    ],
    out: Annotated[Path, typer.Option(help="The supernet directory to write.")],
    model: Annotated[
        str | None, typer.Option(help="vit_b, vit_l, vit_h or custom: refuse any other.")
    ] = None,
    resolutions: Annotated[
        str | None, typer.Option(help="Input sides in pixels, such as 768,896,1024.")
    ] = None,
    width_ratios: Annotated[
        str, typer.Option(help="MLP widths as shares of the full width.")
    ] = "0.25,0.5,0.75,1",
    head_ratios: Annotated[
        str, typer.Option(help="Attention heads as shares of all heads.")
    ] = "0.5,0.75,1",
    min_depth: Annotated[
        int | None, typer.Option(min=1, help="Fewest layers; default: half of them.")
    ] = None,
    narrow_first: Annotated[
        bool,
        typer.Option("--narrow-first", help="Narrow layer 0 as well; else it stays at full width."),
    ] = False,
    calibration_views: Annotated[
        int, typer.Option(min=1, help="Images (or objects) to find importance on.")
    ] = 16,
    ordering: Annotated[
        str,
        typer.Option(help="Sort neurons and heads by: wanda, taylor, magnitude, or none."),
    ] = "wanda",
    taylor: Annotated[
        bool,
        typer.Option("--taylor/--no-taylor", help="Taylor scores too: several GB at 1024 px."),
    ] = True,
    framing: FramingOption = None,
    device: ComputeOption = "cpu",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn a SAM checkpoint into a supernet.

    Orders MLP neurons and heads by importance, finds what each layer is worth by leaving it out,
    and writes a supernet directory; 'supernet inspect' shows what was found.

    [bold]Example:[/bold] hwsearch supernet build --checkpoint sam_vit_b_01ec64.pth --model vit_b
    --data coco --out vit_b-supernet
    """
    from hwsearch.cli.progress import RichProgress
    from hwsearch.costs import encoder_params
    from hwsearch.supernet.scores import parse_ordering
    from hwsearch.workflow.build import Calibration, SpaceChoices, build_supernet

    chosen_ordering = parse_ordering(ordering)
    with RichProgress() as progress:
        supernet, manifest = build_supernet(
            checkpoint,
            out=out,
            calibration=Calibration(
                sources=tuple(data),
                views=max(calibration_views, len(data)),
                framing=parse_framing(framing, "image"),
                taylor=taylor,
            ),
            model=model,
            choices=SpaceChoices(
                resolutions=parse_list(resolutions, int, "list of resolutions") or None,
                width_ratios=parse_list(width_ratios, float, "list of shares"),
                head_ratios=parse_list(head_ratios, float, "list of shares"),
                min_depth=min_depth,
                narrow_first=narrow_first,
            ),
            ordering=chosen_ordering,
            seed=seed,
            device=device,
            progress=progress,
        )
    space, geometry = supernet.space, supernet.geometry
    params = {
        name: encoder_params(geometry, config)
        for name, config in (("largest", space.largest), ("smallest", space.smallest))
    }
    print_result(
        {
            "out": str(out),
            "supernet_id": supernet.id,
            "subnets": space.size,
            "params": params,
            "importance": [layer.model_dump() for layer in manifest.importance],
        },
        as_json=as_json,
        lines=[
            f"Wrote {out} ({supernet.id}): {space.size:.3g} subnets, encoders of "
            f"{params['smallest'] / 1e6:.2f} to {params['largest'] / 1e6:.2f} M parameters.",
            "Layers by what is lost without them (mIoU points): "
            + ", ".join(
                f"{layer.index}{'g' if layer.is_global else ''} {100 * layer.miou_drop:+z.1f}"
                for layer in sorted(manifest.importance, key=lambda layer: layer.miou_drop)
            ),
            f"Next: hwsearch supernet train {out} --data … --out …",
        ],
    )


@app.command()
def inspect(
    supernet: Annotated[str, typer.Argument(help="A supernet directory, or 'demo'.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="An HTML page with the plot to write as well.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each layer was worth when the supernet was built, and its neurons and heads.

    [bold]Example:[/bold] hwsearch supernet inspect vit_b-supernet --out importance.html
    """
    from hwsearch.workflow.inspect import inspect_supernet

    found = inspect_supernet(supernet)
    if out is not None:
        found.write_page(out)
    print_result(
        {**found.as_json(), "page": None if out is None else str(out)},
        as_json=as_json,
        lines=found.lines() + ([] if out is None else [f"Plot: {out}"]),
    )


@app.command()
def train(
    supernet: Annotated[str, typer.Argument(help="A supernet directory, or 'demo'.")],
    *,
    data: Annotated[list[str], typer.Option(help="'scenes' or a data folder; repeat it.")],
    out: Annotated[Path, typer.Option(help="The supernet directory to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2000,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images a step; default: 8 at 256 px, 1 at 1024.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Most prompts an image.")] = 4,
    random_subnets: Annotated[
        int | None,
        typer.Option(min=0, help="Subnets a step beside the largest and the smallest; default: 2."),
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option(
            help="Fine-tune this one alone, at the others' expense: 'largest', 'smallest', a file "
            "with a SubnetConfig, or a bundle."
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 5e-4,
    distillation: Annotated[
        bool, typer.Option("--distil/--no-distil", help="In-place distillation.")
    ] = True,
    focal: Annotated[
        bool, typer.Option("--focal", help="SAM's focal + dice (20 : 1) instead of BCE + dice.")
    ] = False,
    bfloat16: Annotated[
        bool, typer.Option("--bf16/--fp32", help="bfloat16 autocast, or plain fp32.")
    ] = True,
    half: Annotated[bool, typer.Option("--half", help="Write the weights in fp16.")] = False,
    device: ComputeOption = "cpu",
    data_workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare batches, for a GPU; 0: a thread.")
    ] = 0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a supernet by the sandwich rule; run it again to go on after an interruption.

    [bold]Example:[/bold] hwsearch supernet train vit_b-supernet --data coco --data my-images
    --out vit_b-trained --steps 10000
    [bold]Example:[/bold] hwsearch supernet train vit_b-trained --subnet runs/bundle --data coco
    --out vit_b-tuned --steps 2000
    """
    from hwsearch.cli.progress import RichProgress
    from hwsearch.evaluation import default_batch
    from hwsearch.supernet.store import load_manifest
    from hwsearch.supernet.training.batches import BatchSettings
    from hwsearch.supernet.training.losses import LossWeights
    from hwsearch.supernet.training.settings import TrainSettings
    from hwsearch.workflow.training import RANDOM_SUBNETS, train_supernet

    if subnet is not None and random_subnets is not None:
        raise UsageError("--subnet trains one alone, without --random-subnets: leave one out.")
    if not learning_rate > 0:
        raise UsageError(f"The learning rate has to be positive, not {learning_rate:g}.")
    manifest = load_manifest(supernet)
    settings = TrainSettings(
        steps=steps,
        learning_rate=learning_rate,
        distillation=distillation,
        bfloat16=bfloat16,
        seed=seed,
        batch=BatchSettings(
            images=images or default_batch(manifest.geometry.image_size),
            prompts=prompts,
            whole_image_share=1.0 if manifest.framing == "image" else 0.2,
        ),
        loss=LossWeights(bce=0.0, focal=20.0) if focal else LossWeights(),
    )
    with RichProgress() as progress:
        _, trained = train_supernet(
            supernet,
            data=data,
            out=out,
            settings=settings,
            random_subnets=RANDOM_SUBNETS if random_subnets is None else random_subnets,
            subnet=subnet,
            half=half,
            device=device,
            data_workers=data_workers,
            progress=progress,
        )
    figures = trained.history[-1]
    print_result(
        {"out": str(out), **figures},
        as_json=as_json,
        lines=[f"Wrote {out} after {figures.get('step', steps)} steps."]
        + [
            f"  {name}: mIoU {value:.3f}"
            for name, value in figures.items()
            if "/" in name and isinstance(value, float)
        ],
    )


@app.command()
def evaluate(
    supernet: Annotated[str, typer.Argument(help="A supernet directory, 'demo', or a bundle.")],
    *,
    data: Annotated[list[str], typer.Option(help="'scenes' or a data folder; repeat it.")],
    subnet: Annotated[
        str | None,
        typer.Option(
            help="'largest' (the default), 'smallest', a SubnetConfig file, or a bundle that "
            "holds it; not where a bundle is evaluated."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    max_views: Annotated[
        int, typer.Option(min=1, help="At most so many images (or objects) of each set.")
    ] = 500,
    framing: FramingOption = None,
    device: ComputeOption = "cpu",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure mIoU by box and by one click, of a subnet or of an exported bundle.

    Boxes and clicks come from the ground truth. The mask is the one that the model's own predicted
    IoU selects; the oracle, the best mask by ground truth, stands beside it. Where objects have
    classes, COCO's mask AP is given for the box prompts, with predicted IoU as the score: it
    tells how good and how well ranked the masks are. No detector takes part.

    [bold]Example:[/bold] hwsearch supernet evaluate demo --data scenes --subnet smallest
    """
    from hwsearch.cli.accuracy import accuracy_lines
    from hwsearch.cli.progress import RichProgress
    from hwsearch.workflow.evaluate import EvaluationPlan, evaluate_model

    plan = EvaluationPlan(
        data=data,
        split=split,
        max_views=max_views,
        framing=parse_framing(framing, "") or None,
        seed=seed,
        device=device,
    )
    with RichProgress() as progress:
        found = evaluate_model(supernet, plan, subnet=subnet, progress=progress)
    print_result(found.as_json(), as_json=as_json, lines=accuracy_lines(found))
