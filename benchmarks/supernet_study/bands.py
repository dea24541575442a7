"""The best subnets of a size, and the curve down to where accuracy falls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.evaluation import EvaluationSet
from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.moves import mutate
from hwsearch.supernet.supernet import Supernet
from supernet_study.study import Study, mean_miou

BANDS = (0.30, 0.50, 0.70, 0.85)
WIDTH = 0.04  # a band reaches so much further down than its name says
DRAWS = 40_000
CANDIDATES = 24
PARENTS, CHILDREN, GENERATIONS = 6, 24, 2
MOST_MUTATIONS = 2000
FINALISTS = 6
FEW_VIEWS = 2  # candidates are first compared on this fraction of the views


@dataclass(frozen=True)
class Sized:
    """A subnet and its size."""

    config: SubnetConfig
    params: int
    macs: int


def sized(net: Supernet, config: SubnetConfig) -> Sized:
    """A subnet with encoder parameters and MACs."""
    return Sized(config, encoder_params(net.geometry, config), encoder_macs(net.geometry, config))


def regular(net: Supernet, band: float) -> list[Sized]:
    """Subnets of a band whose layers are all alike, the least important ones left out."""
    space, largest = net.space, net.space.largest
    found: dict[SubnetConfig, None] = {}
    for depth in range(space.min_depth, len(space.layers) + 1):
        dropped = set(space.removal_order[: len(space.layers) - depth])
        kept = [choices for choices in space.layers if choices.index not in dropped]
        shared_widths = set.intersection(*(set(choices.mlp_widths) for choices in kept))
        shared_heads = set.intersection(*(set(choices.heads) for choices in kept))
        for width, heads in itertools.product(sorted(shared_widths), sorted(shared_heads)):
            layers = tuple(
                LayerConfig(index=choices.index, mlp_width=width, heads=heads) for choices in kept
            )
            config = largest.model_copy(update={"layers": layers})
            if _is_in(net, band, config):
                found[config] = None
    return [sized(net, config) for config in found]


def candidates(
    net: Supernet, *, seed: int, bands: Sequence[float] | None = None
) -> dict[float, list[Sized]]:
    """Random subnets of each band, all at the full resolution, which parameters don't see.

    A band's subnets are the same whichever others are asked for; by default all are.
    """
    rng = np.random.default_rng(seed)
    resolution = net.space.largest.resolution
    found: dict[float, dict[str, Sized]] = {band: {} for band in bands or BANDS}
    for _ in range(DRAWS):
        drawn = net.space.sample(rng).model_copy(update={"resolution": resolution})
        for band, members in found.items():
            if len(members) < CANDIDATES and _is_in(net, band, drawn):
                members[drawn.id] = sized(net, drawn)
        if all(len(members) == CANDIDATES for members in found.values()):
            break
    return {band: list(members.values()) for band, members in found.items()}


def best_of_band(study: Study, net: Supernet, band: float, members: list[Sized]) -> Sized:
    """The most accurate subnet of a band on the search views, by a small evolution.

    Members are compared on a part of the views; the best have mutated children of the same band;
    the finalists are compared on all views.
    """
    rng = np.random.default_rng([study.settings.seed, round(100 * band)])
    few = [_thinned(chosen) for chosen in study.search_sets]
    judged = {member.config: mean_miou(net, member.config, few) for member in members}
    for _ in range(GENERATIONS):
        parents = sorted(judged, key=judged.__getitem__, reverse=True)[:PARENTS]
        for child in _children(net, band, parents, rng):
            judged.setdefault(child, mean_miou(net, child, few))
    finalists = sorted(judged, key=judged.__getitem__, reverse=True)[:FINALISTS]
    best = max(finalists, key=lambda config: mean_miou(net, config, study.search_sets))
    return sized(net, best)


def _children(
    net: Supernet, band: float, parents: list[SubnetConfig], rng: np.random.Generator
) -> list[SubnetConfig]:
    """Mutations of parents that stay in the band and at the full resolution."""
    space = DeploymentSpace(subnets=net.space)
    resolution = net.space.largest.resolution
    found: dict[SubnetConfig, None] = {}
    for _ in range(MOST_MUTATIONS):
        parent = parents[int(rng.integers(len(parents)))]
        start = Deployment(subnet=parent)
        mutant = mutate(space, start, steps=int(rng.integers(2, 6)), rng=rng)
        child = mutant.subnet.model_copy(update={"resolution": resolution})
        if _is_in(net, band, child):
            found[child] = None
        if len(found) == CHILDREN:
            break
    return list(found)


def _is_in(net: Supernet, band: float, config: SubnetConfig) -> bool:
    full = encoder_params(net.geometry, net.space.largest)
    return band <= 1 - encoder_params(net.geometry, config) / full < band + WIDTH


def _thinned(chosen: EvaluationSet) -> EvaluationSet:
    return replace(
        chosen,
        views=chosen.views[::FEW_VIEWS],
        image_of=chosen.image_of[::FEW_VIEWS],
        categories=chosen.categories[::FEW_VIEWS],
        fingerprint=f"{chosen.fingerprint}/{FEW_VIEWS}",
    )
