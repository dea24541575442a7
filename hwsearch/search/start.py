"""The subnets that a study looks at before its sampler takes over."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Cost
from hwsearch.space import SearchSpace

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
TILTS = (0.0, 0.5, 1.0)


def informed_start(
    space: DeploymentSpace, cost: Cost, limit: float, *, count: int = 16
) -> list[Deployment]:
    """The largest, the smallest, and a spread of regular subnets just under the limit.

    Regular subnets leave out layers in the order of `space.removal_order`; their widths and heads
    follow one level, tilted so that important layers stay wider. Of each precision, resolution
    and depth the one nearest below the limit is taken; precisions and resolutions take turns.

    Args:
        space: where the deployments come from.
        cost: costs, (n,); give those of the upper bound, so that the start is feasible.
        limit: the cost that the search may not exceed.
        count: how many deployments at most.
    """
    regular = space.in_each_precision(dict.fromkeys(_regular_subnets(space.subnets)))
    nearest: dict[tuple[str, int], dict[int, tuple[float, Deployment]]] = defaultdict(dict)
    for option, price in zip(regular, cost(regular).tolist(), strict=True):
        of_kind = nearest[option.precision, option.subnet.resolution]
        best, _ = of_kind.get(option.subnet.depth, (-1.0, option))
        if best < price <= limit:
            of_kind[option.subnet.depth] = (price, option)
    ladders = [
        [option for _, option in sorted(found.values(), key=lambda pair: -pair[0])]
        for found in nearest.values()
    ]
    chosen = [space.largest, space.smallest, *_take_turns(ladders)]
    return list(dict.fromkeys(chosen))[:count]


def _regular_subnets(space: SearchSpace) -> Iterator[SubnetConfig]:
    importance = {index: rank for rank, index in enumerate(space.removal_order, start=1)}
    most = max(len(space.removal_order), 1)
    depths = range(space.min_depth, len(space.layers) + 1)
    for resolution, depth in itertools.product(space.resolutions, depths):
        dropped = set(space.removal_order[: len(space.layers) - depth])
        kept = [choices for choices in space.layers if choices.index not in dropped]
        for width, heads, tilt in itertools.product(LEVELS, LEVELS, TILTS):
            lean = {c.index: tilt * (importance.get(c.index, most) / most - 0.5) for c in kept}
            yield SubnetConfig(
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
