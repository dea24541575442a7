"""What each ingredient of the training brings, at equal budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from hwsearch.checkpoint import load_checkpoint
from hwsearch.compute import compute_device
from hwsearch.records import ScoreMethod, SubnetConfig
from hwsearch.supernet.activations import activation_norms
from hwsearch.supernet.importance import with_uniform_removal
from hwsearch.supernet.ordering import reorder
from hwsearch.supernet.scores import LayerScores, Ordering, magnitude_scores, wanda_scores
from hwsearch.supernet.store import load_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.taylor import taylor_scores
from hwsearch.supernet.training.batches import BatchSettings, training_batches
from hwsearch.supernet.training.rules import DrawSubnets, random_only, sandwich
from supernet_study.runs import RANDOM_SUBNETS, trained, training_sets
from supernet_study.study import Study, mean_miou

CALIBRATION_BATCHES, CALIBRATION_SEED = 20, 7
FIGURES = ("largest", "random", "smallest")
JUDGED = 12  # random subnets that every variant is judged on, beside largest and smallest


@dataclass(frozen=True)
class Variant:
    """The default training, or one that differs from another by one ingredient.

    Attributes:
        against: the variant that it differs from.
    """

    name: str
    against: str = "default"
    ordering: Ordering = "wanda"
    graded: bool = True
    distillation: bool = True
    sandwiched: bool = True


VARIANTS = (
    Variant("default"),
    Variant("not reordered", ordering="none"),
    Variant("ordered by |W|", ordering="magnitude"),
    Variant("ordered by Taylor", ordering="taylor"),
    Variant("uniform removal", graded=False),
    Variant("no distillation", distillation=False),
    # Without the largest in every step there is no teacher, hence the other comparison.
    Variant("random subnets only", "no distillation", distillation=False, sandwiched=False),
)


def ablation(study: Study, *, steps: int, seeds: int) -> list[dict[str, Any]]:
    """One row for each variant: mIoU of largest, smallest and random subnets, and its differences.

    The differences (`…_gain`) are those of trainings with the same seed, to the variant named by
    `against`; one for each seed, so that their spread can be seen.

    Args:
        study: data and where results are kept.
        steps: budget of each training, in optimiser steps of four subnets.
        seeds: trainings of each variant, on other batches and other subnets.
    """
    runs = {
        variant.name: [_judged(study, variant, steps, seed) for seed in range(seeds)]
        for variant in VARIANTS
    }
    return [
        {"variant": variant.name, "against": variant.against, "steps": steps, "seeds": seeds}
        | {"untrained": runs[variant.name][0]["untrained"]}
        | _figures(runs[variant.name], runs[variant.against])
        for variant in VARIANTS
    ]


def _figures(runs: list[dict[str, float]], others: list[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for figure in FIGURES:
        found[figure] = fmean(run[figure] for run in runs)
        found[f"{figure}_gain"] = [
            run[figure] - other[figure] for run, other in zip(runs, others, strict=True)
        ]
    return found


def _judged(study: Study, variant: Variant, steps: int, seed: int) -> dict[str, float]:
    name = f"{variant.name.replace(' ', '-').replace('|', '')}-{seed}"

    def judge() -> dict[str, float]:
        before = _start(study, variant.ordering)
        untrained = study.kept(f"untrained-{variant.ordering}", lambda: _random_miou(study, before))
        after = trained(
            study,
            f"ablation/{name}-{steps}",
            before,
            draw=_rule(before, variant),
            settings=replace(
                study.settings,
                steps=steps,
                seed=seed,
                distillation=variant.distillation,
                ema_decay=0.98,
                warmup_steps=steps // 10,
                checkpoint_every=max(25, steps // 4),
            ),
            validated=False,
        )
        figures = {
            name: fmean(mean_miou(after, config, study.search_sets) for config in configs)
            for name, configs in _judged_subnets(after)
        }
        return figures | {"untrained": untrained}

    return study.kept(f"ablation/{name}-{steps}", judge)


def _random_miou(study: Study, net: Supernet) -> float:
    (configs,) = (configs for name, configs in _judged_subnets(net) if name == "random")
    return fmean(mean_miou(net, config, study.search_sets) for config in configs)


def _judged_subnets(net: Supernet) -> Iterator[tuple[str, list[SubnetConfig]]]:
    rng = np.random.default_rng(2024)
    yield "largest", [net.space.largest]
    yield "random", [net.space.sample(rng) for _ in range(JUDGED)]
    yield "smallest", [net.space.smallest]


def _rule(net: Supernet, variant: Variant) -> DrawSubnets:
    importance = net.importance if variant.graded else with_uniform_removal(net.importance)
    removal = {layer.index: layer.removal_probability for layer in importance}
    if variant.sandwiched:
        return sandwich(net.space, removal, RANDOM_SUBNETS)
    return random_only(net.space, removal, RANDOM_SUBNETS + 2)


def _start(study: Study, ordering: Ordering) -> Supernet:
    """The base model with the study's space and importance, its neurons and heads reordered."""
    found = load_supernet(study.start)
    sam, geometry = load_checkpoint(study.checkpoint)
    net = Supernet(sam, geometry, found.space, found.importance)
    if ordering != "none":
        reorder(net, _scores(study, net, ordering))
    net.sam.to(compute_device(study.device))
    return net


def _scores(study: Study, net: Supernet, method: ScoreMethod) -> tuple[LayerScores, ...]:
    if method == "magnitude":
        return magnitude_scores(net)
    side = net.geometry.image_size
    batches = list(
        training_batches(
            training_sets(study.data),
            resolution=side,
            mask_size=4 * side // net.geometry.patch_size,
            settings=BatchSettings(),
            seed=CALIBRATION_SEED,
            start=0,
            stop=CALIBRATION_BATCHES,
        )
    )
    if method == "taylor":
        return taylor_scores(net, batches)
    encoder = net.sam.image_encoder
    return wanda_scores(net, activation_norms(net, lambda: [encoder(b.images) for b in batches]))
