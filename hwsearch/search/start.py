"""The subnets that a study looks at before its sampler takes over."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

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
    turns. Without one, each is the one least like those before it.

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
        chosen = _spread(space, list(dict.fromkeys([*extremes, *regular])), cost, count)
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


def _spread(
    space: DeploymentSpace, options: Sequence[Deployment], cost: Cost, count: int
) -> list[Deployment]:
    """The first two, then again and again the option that is furthest from all those chosen."""
    places = features(space, options, cost(options))
    nearest = np.linalg.norm(places - places[0], axis=1)
    chosen = [0]
    while len(chosen) < min(count, len(options)):
        following = 1 if len(chosen) == 1 else int(np.argmax(nearest))
        chosen.append(following)
        nearest = np.minimum(nearest, np.linalg.norm(places - places[following], axis=1))
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
