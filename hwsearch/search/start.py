"""The subnets that a study looks at before its sampler takes over."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Cost
from hwsearch.search.surrogate import features
from hwsearch.space import SearchSpace

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
TILTS = (0.0, 0.5, 1.0)


def informed_start(
    space: DeploymentSpace, cost: Cost, limit: float | None, *, count: int = 12
) -> list[Deployment]:
    """The largest, the smallest, and a spread of regular subnets.

    Regular subnets leave out layers in the order of `space.removal_order`; their widths and heads
    follow one level, tilted so that important layers stay wider. With a limit, of each precision,
    resolution and depth the one nearest below it is taken, and precisions and resolutions take
    turns. Without one, the cheapest of each precision and resolution come first, for each begins a
    stretch of the front of its own, but at most `count // 2` of them, those that cost least; each
    further one is the one least like those before it.

    Args:
        space: where the deployments come from.
        cost: costs, (n,); give those of the upper bound, so that the start is feasible.
        limit: the cost that the search may not exceed, or None.
        count: how many deployments at most.
    """
    regular = space.in_each_precision(dict.fromkeys(_regular_subnets(space.subnets)))
    costs = cost(regular)
    extremes = [space.largest, space.smallest]
    if limit is None:
        cheapest = _cheapest_of_each_kind(regular, costs)[: count // 2]
        chosen = _spread(space, list(dict.fromkeys([*extremes, *cheapest])), regular, cost, count)
    else:
        chosen = [*extremes, *_nearest_below(regular, costs, limit)]
    return list(dict.fromkeys(chosen))[:count]


def draw_regular(space: DeploymentSpace, rng: np.random.Generator) -> Deployment:
    """A random regular subnet in a random precision."""
    subnets = space.subnets
    subnet = _regular(
        subnets,
        resolution=subnets.resolutions[rng.integers(len(subnets.resolutions))],
        depth=int(rng.integers(subnets.min_depth, len(subnets.layers) + 1)),
        width=float(rng.random()),
        heads=float(rng.random()),
        tilt=float(rng.choice(TILTS)),
    )
    return Deployment(
        subnet=subnet, precision=space.precisions[rng.integers(len(space.precisions))]
    )


def _nearest_below(
    regular: Sequence[Deployment], costs: NDArray[np.float64], limit: float
) -> list[Deployment]:
    nearest: dict[tuple[str, int], dict[int, tuple[float, Deployment]]] = defaultdict(dict)
    for option, price in zip(regular, costs.tolist(), strict=True):
        of_kind = nearest[option.precision, option.subnet.resolution]
        best, _ = of_kind.get(option.subnet.depth, (-1.0, option))
        if best < price <= limit:
            of_kind[option.subnet.depth] = (price, option)
    ladders = [
        [option for _, option in sorted(found.values(), key=lambda pair: -pair[0])]
        for found in nearest.values()
    ]
    return list(_take_turns(ladders))


def _cheapest_of_each_kind(
    regular: Sequence[Deployment], costs: NDArray[np.float64]
) -> list[Deployment]:
    cheapest: dict[tuple[str, int], Deployment] = {}
    for place in np.argsort(costs, kind="stable"):
        option = regular[place]
        cheapest.setdefault((option.precision, option.subnet.resolution), option)
    return list(cheapest.values())


def _spread(
    space: DeploymentSpace,
    first: Sequence[Deployment],
    others: Sequence[Deployment],
    cost: Cost,
    count: int,
) -> list[Deployment]:
    """The first ones, then again and again the option that is furthest from all those chosen."""
    options = list(dict.fromkeys([*first, *others]))
    places = features(space, options, cost(options))
    chosen = list(range(min(len(first), count)))
    nearest = cdist(places, places[chosen]).min(axis=1)
    while len(chosen) < min(count, len(options)):
        furthest = int(np.argmax(nearest))
        chosen.append(furthest)
        nearest = np.minimum(nearest, np.linalg.norm(places - places[furthest], axis=1))
    return [options[place] for place in chosen]


def _regular_subnets(space: SearchSpace) -> Iterator[SubnetConfig]:
    depths = range(space.min_depth, len(space.layers) + 1)
    for resolution, depth in itertools.product(space.resolutions, depths):
        for width, heads, tilt in itertools.product(LEVELS, LEVELS, TILTS):
            yield _regular(
                space, resolution=resolution, depth=depth, width=width, heads=heads, tilt=tilt
            )


def _regular(
    space: SearchSpace, *, resolution: int, depth: int, width: float, heads: float, tilt: float
) -> SubnetConfig:
    importance = {index: rank for rank, index in enumerate(space.removal_order, start=1)}
    most = max(len(space.removal_order), 1)
    dropped = set(space.removal_order[: len(space.layers) - depth])
    kept = [choices for choices in space.layers if choices.index not in dropped]
    lean = {c.index: tilt * (importance.get(c.index, most) / most - 0.5) for c in kept}
    return SubnetConfig(
        resolution=resolution,
        layers=tuple(
            LayerConfig(
                index=choices.index,
                mlp_width=_at(choices.mlp_widths, width + lean[choices.index]),
                heads=_at(choices.heads, heads + lean[choices.index]),
            )
            for choices in kept
        ),
    )


def _at(choices: tuple[int, ...], level: float) -> int:
    return choices[round(min(max(level, 0.0), 1.0) * (len(choices) - 1))]


def _take_turns(ladders: Sequence[Sequence[Deployment]]) -> Iterator[Deployment]:
    for row in itertools.zip_longest(*ladders):
        yield from (option for option in row if option is not None)
