"""The best subnets of a size, and the curve down to where accuracy falls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.evaluation import EvaluationSet
from hwsearch.records import SubnetConfig
from hwsearch.supernet.supernet import Supernet
from supernet_study.study import Study, mean_miou

BANDS = (0.30, 0.50, 0.70, 0.85)
WIDTH = 0.04  # a band reaches so much further down than its name says
DRAWS = 40_000
CANDIDATES = 24
FINALISTS = 5
FEW_VIEWS = 4  # candidates are first compared on this fraction of the views


@dataclass(frozen=True)
class Sized:
    """A subnet and its size."""

    config: SubnetConfig
    params: int
    macs: int


def sized(net: Supernet, config: SubnetConfig) -> Sized:
    """A subnet with encoder parameters and MACs."""
    return Sized(config, encoder_params(net.geometry, config), encoder_macs(net.geometry, config))


def candidates(net: Supernet, *, seed: int) -> dict[float, list[Sized]]:
    """Random subnets of each band, all at the full resolution, which parameters don't see."""
    rng = np.random.default_rng(seed)
    full = encoder_params(net.geometry, net.space.largest)
    resolution = net.space.largest.resolution
    found: dict[float, dict[str, Sized]] = {band: {} for band in BANDS}
    for _ in range(DRAWS):
        drawn = net.space.sample(rng).model_copy(update={"resolution": resolution})
        smaller = 1 - encoder_params(net.geometry, drawn) / full
        for band, members in found.items():
            if band <= smaller < band + WIDTH and len(members) < CANDIDATES:
                members[drawn.id] = sized(net, drawn)
        if all(len(members) == CANDIDATES for members in found.values()):
            break
    return {band: list(members.values()) for band, members in found.items()}


def best_of_band(study: Study, net: Supernet, members: list[Sized]) -> tuple[Sized, list[float]]:
    """The most accurate member on the search views, found in two rounds.

    Returns:
        It, and the first round's mIoU of each member.
    """
    few = [_thinned(chosen) for chosen in study.search_sets]
    first = [mean_miou(net, member.config, few) for member in members]
    leaders = sorted(range(len(members)), key=lambda place: -first[place])[:FINALISTS]
    second = [mean_miou(net, members[place].config, study.search_sets) for place in leaders]
    return members[leaders[int(np.argmax(second))]], first


def _thinned(chosen: EvaluationSet) -> EvaluationSet:
    return replace(
        chosen,
        views=chosen.views[::FEW_VIEWS],
        image_of=chosen.image_of[::FEW_VIEWS],
        categories=chosen.categories[::FEW_VIEWS],
        fingerprint=f"{chosen.fingerprint}/{FEW_VIEWS}",
    )
