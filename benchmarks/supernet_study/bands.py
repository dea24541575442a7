"""The best subnets of a size, and the curve down to where accuracy falls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.evaluation import EvaluationSet
from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.propose import propose
from hwsearch.search.surrogate import features, fit_surrogate
from hwsearch.supernet.supernet import Supernet
from supernet_study.study import Study, mean_miou

BANDS = (0.30, 0.50, 0.70, 0.85)
WIDTH = 0.04  # a band reaches so much further down than its name says
DRAWS = 40_000
CANDIDATES = 12  # random ones, beside the regular ones
FEW_VIEWS = 50  # of each set at least, or all there are, on which candidates are first compared


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
    """The most accurate subnet of a band on the search views, found as a search finds it.

    Members and what the search proposes after them are compared on a few views of each set; the
    finalists, by what the surrogate makes of all of these, on all views.
    """
    rng = np.random.default_rng([study.settings.seed, round(100 * band)])
    full_resolution = net.space.model_copy(update={"resolutions": net.space.resolutions[-1:]})
    space = DeploymentSpace(subnets=full_resolution)
    few = [_thinned(chosen) for chosen in study.search_sets]

    def shares(deployments: Sequence[Deployment]) -> NDArray[np.float64]:
        return np.array([_share(net, deployment.subnet) for deployment in deployments])

    start = [Deployment(subnet=member.config) for member in members]
    judged = {one: mean_miou(net, one.subnet, few) for one in start}
    for _ in range(study.proposals):
        proposed = propose(space, judged, upper=shares, limit=1 - band, rng=rng)
        if proposed is None:
            break
        judged[proposed] = mean_miou(net, proposed.subnet, few)
    inputs = features(space, list(judged), shares(list(judged)))
    expected, _ = fit_surrogate(inputs, np.array(list(judged.values()))).predict(inputs)
    ranked = [list(judged)[place].subnet for place in np.argsort(-expected)]
    finalists = [config for config in ranked if _is_in(net, band, config)][: study.finalists]
    best = max(finalists, key=lambda config: mean_miou(net, config, study.search_sets))
    return sized(net, best)


def _share(net: Supernet, config: SubnetConfig) -> float:
    """Encoder parameters, as a share of the largest subnet's."""
    largest = encoder_params(net.geometry, net.space.largest)
    return encoder_params(net.geometry, config) / largest


def _is_in(net: Supernet, band: float, config: SubnetConfig) -> bool:
    return band <= 1 - _share(net, config) < band + WIDTH


def _thinned(chosen: EvaluationSet) -> EvaluationSet:
    step = max(1, len(chosen.views) // FEW_VIEWS)
    return replace(
        chosen,
        samples=chosen.samples[::step],
        image_of=chosen.image_of[::step],
        fingerprint=f"{chosen.fingerprint}/{step}",
    )
