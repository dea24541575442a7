"""The stage that trains: a supernet on data sets, by the sandwich rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwsearch.compute import compute_device
from hwsearch.data.open import open_dataset
from hwsearch.progress import Progress, SilentProgress
from hwsearch.supernet.store import SupernetManifest, load_manifest, load_supernet, save_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.rules import alone, sandwich
from hwsearch.supernet.training.settings import TrainSettings
from hwsearch.supernet.training.train import train
from hwsearch.supernet.training.validation import validation
from hwsearch.workflow.subnets import named_subnet

VALIDATION_VIEWS = 64
RANDOM_SUBNETS = 2


def train_supernet(
    source: Path | str,
    *,
    data: Sequence[str],
    out: Path,
    settings: TrainSettings,
    random_subnets: int = RANDOM_SUBNETS,
    subnet: str | None = None,
    half: bool = False,
    device: str = "cpu",
    data_workers: int = 0,
    progress: Progress | None = None,
) -> tuple[Supernet, SupernetManifest]:
    """Train a supernet and write the result; an interrupted run resumes.

    Args:
        source: the supernet directory to start from, or `demo`.
        data: data folders or `scenes`, drawn from evenly.
        out: the supernet directory to write; it also holds the checkpoint and the log.
        settings: how long and how.
        random_subnets: subnets of each step beside the largest and the smallest.
        subnet: the one to train alone, as `named_subnet` takes it: `largest` for plain fine-tuning
            of the full model; None for the sandwich rule.
        half: write the weights in fp16.
        device: what torch computes on, `cpu`, `cuda`, `cuda:N` or `mps`.
        data_workers: processes that prepare batches; 0 for one thread of this process.
        progress: who shows the steps.

    Raises:
        CheckpointError: the supernet can't be read, or `out` belongs to another training.
        DataError: a data set can't be used.
        ExportError: the bundle that names the subnet can't be read.
        UsageError: there is no such device or subnet.
        DeviceError: torch can't use it here.
        TrainingError: the loss is no longer a number, or another process trains into `out`.
    """
    progress = progress or SilentProgress()
    computes_on = compute_device(device)
    supernet, manifest = load_supernet(source), load_manifest(source)
    supernet.sam.to(computes_on)
    config = None if subnet is None else named_subnet(supernet, subnet)
    draw = (
        sandwich(supernet.space, supernet.removal_probabilities(), random_subnets)
        if config is None
        else alone(config)
    )
    rule = str(random_subnets) if config is None else f"alone {config.id}"
    datasets = [open_dataset(folder, "train") for folder in data]
    log = train(
        supernet,
        datasets,
        settings=settings,
        draw_subnets=draw,
        directory=out,
        purpose=f"{supernet.weights_digest()} {rule}",
        validate=validation(
            data,
            framing=manifest.framing,
            max_views=VALIDATION_VIEWS,
            subnets=None if config is None else {"subnet": config},
        ),
        data_workers=data_workers,
        progress=progress,
    )
    entry: dict[str, float | int | str] = {
        **(log[-1] if log else {}),  # the settings' own learning rate, not the last of its cosine
        "data": ", ".join(dataset.name for dataset in datasets),
        **({"random_subnets": random_subnets} if config is None else {"subnet": config.id}),
        "learning_rate": settings.learning_rate,
        "images_per_step": settings.batch.images,
        "distillation": settings.distillation,
        "correction_share": settings.correction_share,
        "seed": settings.seed,
    }
    manifest = manifest.model_copy(update={"history": (*manifest.history, entry)})
    save_supernet(out, supernet, manifest, half=half)
    return supernet, manifest
