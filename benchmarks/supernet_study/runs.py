"""The trainings that are compared: supernet, full model, and subnets on their own.

All of them start from the same weights and see the same batches in the same order, in the same
number of optimiser steps, round for round. A step of the supernet passes through `PASSES` subnets,
of the others through one: equal in data and updates, not in arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwsearch.data.dataset import Dataset
from hwsearch.data.open import open_dataset
from hwsearch.records import SubnetConfig
from hwsearch.supernet.store import MANIFEST_NAME, load_manifest, save_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.rules import DrawSubnets, alone, sandwich
from hwsearch.supernet.training.settings import TrainSettings
from hwsearch.supernet.training.state import CHECKPOINT_NAME
from hwsearch.supernet.training.train import train
from hwsearch.supernet.training.validation import validation
from supernet_study.study import Study

RANDOM_SUBNETS = 2
PASSES = RANDOM_SUBNETS + 2
VALIDATION_VIEWS = 48


def trained_supernet(study: Study) -> Supernet:
    """The supernet itself, by the sandwich rule."""
    net = study.untrained()
    draw = sandwich(net.space, net.removal_probabilities(), RANDOM_SUBNETS)
    return _trained_in_rounds(study, "supernet", net, draw=draw)


def fine_tuned_base(study: Study) -> Supernet:
    """The full model, trained as many steps on the same batches: the baseline to beat."""
    net = study.untrained()
    return _trained_in_rounds(study, "base-fine-tuned", net, draw=alone(net.space.largest))


def trained_alone(study: Study, name: str, config: SubnetConfig) -> Supernet:
    """One subnet, cut out of the base model and trained as many steps with no other."""
    net = study.untrained()
    folder = f"alone-{name}-{config.id}"
    return _trained_in_rounds(study, folder, net, draw=alone(config), validated=False)


def round_names(study: Study, name: str) -> list[str]:
    """The directories of a training, one for each round."""
    return [name if number == 1 else f"{name}-{number}" for number, _ in enumerate(study.rounds, 1)]


def _trained_in_rounds(
    study: Study, name: str, net: Supernet, *, draw: DrawSubnets, validated: bool = True
) -> Supernet:
    for folder, settings in zip(round_names(study, name), study.rounds, strict=True):
        trained(study, folder, net, draw=draw, settings=settings, validated=validated)
    return net


def trained(
    study: Study,
    name: str,
    net: Supernet,
    *,
    draw: DrawSubnets,
    settings: TrainSettings,
    validated: bool = True,
) -> Supernet:
    """Train `net` in place, or go on with that training, or take what it left.

    Args:
        study: the data.
        name: of the directory under the study's.
        net: the weights to start from.
        draw: the subnets of a step.
        settings: how long and how.
        validated: log mIoUs as the training goes.

    Raises:
        CheckpointError: the directory holds a training of other settings or data.
    """
    out = study.work / name
    train(
        net,
        training_sets(study.data),
        settings=settings,
        draw_subnets=draw,
        directory=out,
        purpose=f"{name} {net.weights_digest()}",
        validate=(
            validation(study.data, framing=study.framing, max_views=VALIDATION_VIEWS)
            if validated
            else None
        ),
        data_workers=study.data_workers,
        progress=study.progress,
    )
    if not (out / MANIFEST_NAME).exists():
        save_supernet(out, net, load_manifest(study.start))
    return net


def briefly_tuned(study: Study, net: Supernet, config: SubnetConfig, steps: int) -> Supernet:
    """A subnet of the trained supernet after a few steps on its own; `net` is not changed."""
    tuned = Supernet(net.sam, net.geometry, net.space, net.importance)
    tuned.sam.to(net.sam.pixel_mean.device)
    settings = replace(
        study.settings,
        steps=steps,
        learning_rate=study.settings.learning_rate / 2,
        warmup_steps=steps // 10,
        ema_decay=0.9,
        checkpoint_every=10 * steps,
    )
    folder = study.work / "tuned" / f"{config.id}-{steps}"
    train(
        tuned,
        training_sets(study.data),
        settings=settings,
        draw_subnets=alone(config),
        directory=folder,
        purpose=f"tuned {net.weights_digest()}",
        data_workers=study.data_workers,
        progress=study.progress,
    )
    (folder / CHECKPOINT_NAME).unlink()
    return tuned


_opened: dict[tuple[str, ...], list[Dataset]] = {}


def training_sets(data: Sequence[str]) -> list[Dataset]:
    """The training splits, opened once: later trainings without workers find images decoded."""
    key = tuple(data)
    if key not in _opened:
        _opened[key] = [open_dataset(source, "train") for source in data]
    return _opened[key]
