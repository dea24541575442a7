"""A few thousand subnets of a supernet, all of which can be judged: layers that change together.

The layers are put into groups by importance. A group is to the search what a layer is elsewhere:
left out, or kept with one MLP width and one number of heads. So the restricted space is an ordinary
`SearchSpace` whose layers are groups, and each of its members means one subnet of the supernet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from hwsearch.errors import UsageError
from hwsearch.records import Index, LayerConfig, Record, SubnetConfig
from hwsearch.space import LayerChoices, SearchSpace

GROUPS = 4


class RestrictedSpace(Record):
    """Groups of layers, the most important first, and what each group may become.

    `space` has a layer for each group; `groups` names the supernet's layers that it stands for.
    """

    groups: tuple[tuple[Index, ...], ...] = Field(min_length=1)
    space: SearchSpace

    @model_validator(mode="after")
    def _one_group_a_layer(self) -> Self:
        if len(self.groups) != len(self.space.layers):
            raise ValueError(f"{len(self.groups)} groups for {len(self.space.layers)} layers")
        named = [index for group in self.groups for index in group]
        if len(set(named)) < len(named) or not all(self.groups):
            raise ValueError(f"groups {self.groups} have to name each layer once")
        return self

    def expand(self, member: SubnetConfig) -> SubnetConfig:
        """The supernet's subnet that a member means.

        Raises:
            UsageError: it is no member of this space.
        """
        self.space.validate_config(member)
        layers = [
            LayerConfig(index=index, mlp_width=layer.mlp_width, heads=layer.heads)
            for layer in member.layers
            for index in self.groups[layer.index]
        ]
        ordered = tuple(sorted(layers, key=lambda layer: layer.index))
        return SubnetConfig(resolution=member.resolution, layers=ordered)

    def members(self) -> Iterator[SubnetConfig]:
        """Every member, each once, always in the same order."""
        options: list[list[LayerConfig | None]] = []
        for choices in self.space.layers:
            kept: list[LayerConfig | None] = [
                LayerConfig(index=choices.index, mlp_width=width, heads=heads)
                for width, heads in itertools.product(choices.mlp_widths, choices.heads)
            ]
            options.append([*([None] if choices.removable else []), *kept])
        for resolution, *picked in itertools.product(self.space.resolutions, *options):
            layers = tuple(layer for layer in picked if isinstance(layer, LayerConfig))
            if len(layers) >= self.space.min_depth and isinstance(resolution, int):
                yield SubnetConfig(resolution=resolution, layers=layers)


def restricted_space(space: SearchSpace, *, groups: int = GROUPS) -> RestrictedSpace:
    """The restriction of a supernet's space that the table is made of.

    Layers are grouped by importance, as the order of removal tells it. All groups have the least
    and the greatest MLP width and number of heads that their layers share. All resolutions stay,
    and all groups but the first may go.

    Args:
        space: the supernet's; its layers that can't be removed have to fit into the first group.
        groups: how many groups.

    Raises:
        UsageError: the space can't be cut into so many groups.
    """
    fixed = [choices.index for choices in space.layers if not choices.removable]
    by_importance = [*fixed, *reversed(space.removal_order)]
    if not 2 <= groups <= len(by_importance):
        raise UsageError(f"{len(by_importance)} layers can't be put into {groups} groups.")
    parts = [tuple(part.tolist()) for part in np.array_split(by_importance, groups)]
    if len(fixed) > len(parts[0]) or space.min_depth > len(parts[0]):
        raise UsageError(
            f"The first of {groups} groups has {len(parts[0])} layers, and {space.min_depth} have "
            "to stay: take fewer groups."
        )
    layers = []
    for number, part in enumerate(parts):
        widths = _shared([space.layers[index].mlp_widths for index in part])
        heads = _shared([space.layers[index].heads for index in part])
        layers.append(
            LayerChoices(
                index=number,
                mlp_widths=tuple(sorted({widths[0], widths[-1]})),
                heads=tuple(sorted({heads[0], heads[-1]})),
                removable=number > 0,
            )
        )
    return RestrictedSpace(
        groups=tuple(parts),
        space=SearchSpace(
            resolutions=space.resolutions,
            layers=tuple(layers),
            min_depth=1,
            removal_order=tuple(range(groups - 1, 0, -1)),
        ),
    )


def _shared(choices: list[tuple[int, ...]]) -> list[int]:
    shared = sorted(set.intersection(*(set(some) for some in choices)))
    if not shared:
        raise UsageError(f"Layers of one group share none of their choices {choices}.")
    return shared
