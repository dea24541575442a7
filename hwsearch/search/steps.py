"""Steps that know the space: the least important layer goes first, the most important stays wide.

A plain neighbour differs in one choice. These differ in what belongs together: a layer exchanged
for another, a layer that gives what another takes, all layers a little narrower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.space import LayerChoices, SearchSpace

FOREMOST = 3  # so many layers at either end of the order of importance are touched


def informed_steps(space: DeploymentSpace, deployment: Deployment) -> list[Deployment]:
    """Deployments that differ from one in a way that usually pays, in no particular order.

    The least important layers are dropped or narrowed, the most important of those left out are
    put back as wide as the others are, both at once, or all layers change by one step.

    Raises:
        UsageError: the deployment is not in the space.
    """
    space.validate_deployment(deployment)
    subnets, config = space.subnets, deployment.subnet
    kept = {layer.index: layer for layer in config.layers}
    found = [
        {index: layer for index, layer in layers.items() if layer is not None}
        for layers in _changed(subnets, kept)
    ]
    wide_enough = [layers for layers in found if len(layers) >= subnets.min_depth]
    return [
        Deployment(
            subnet=SubnetConfig(
                resolution=config.resolution,
                layers=tuple(layers[index] for index in sorted(layers)),
            ),
            precision=deployment.precision,
        )
        for layers in wide_enough
        if layers != kept
    ]


def steps_around(space: DeploymentSpace, deployment: Deployment) -> list[Deployment]:
    """All that is one step away: in a single choice, or in what belongs together.

    Raises:
        UsageError: the deployment is not in the space.
    """
    return [*space.neighbours(deployment), *informed_steps(space, deployment)]


def crossed(
    space: DeploymentSpace, one: Deployment, other: Deployment, *, rng: np.random.Generator
) -> Deployment:
    """A mixture of two parents, each choice from either; `one` where that is too shallow."""
    ours, theirs = (
        {layer.index: layer for layer in parent.subnet.layers} for parent in (one, other)
    )
    layers = []
    for choices in space.subnets.layers:
        layer = (ours if rng.random() < 0.5 else theirs).get(choices.index)
        if layer is not None:
            layers.append(layer)
    if len(layers) < space.subnets.min_depth:
        return one
    return Deployment(
        subnet=SubnetConfig(
            resolution=(one if rng.random() < 0.5 else other).subnet.resolution,
            layers=tuple(layers),
        ),
        precision=(one if rng.random() < 0.5 else other).precision,
    )


def _changed(
    space: SearchSpace, kept: Mapping[int, LayerConfig]
) -> Iterator[Mapping[int, LayerConfig | None]]:
    """Layers by index, None where one is to go."""
    order = [*space.removal_order]
    order += [c.index for c in space.layers if not c.removable]  # the least important first
    inside = [index for index in order if index in kept]
    outside = [index for index in reversed(order) if index not in kept]
    droppable = [index for index in inside if space.layers[index].removable][:FOREMOST]
    back = [_usual(space.layers[index], kept) for index in outside[:FOREMOST]]
    yield from ({**kept, index: None} for index in droppable)
    yield from ({**kept, layer.index: layer} for layer in back)
    yield from ({**kept, gone: None, layer.index: layer} for gone in droppable for layer in back)
    for step in (-1, 1):
        yield {index: _stepped(space, layer, widths=step) for index, layer in kept.items()}
        yield {index: _stepped(space, layer, heads=step) for index, layer in kept.items()}
    for less in inside[:FOREMOST]:
        for more in inside[-FOREMOST:]:
            yield {
                **kept,
                less: _stepped(space, kept[less], widths=-1),
                more: _stepped(space, kept[more], widths=1),
            }
            yield {
                **kept,
                less: _stepped(space, kept[less], heads=-1),
                more: _stepped(space, kept[more], heads=1),
            }


def _stepped(
    space: SearchSpace, layer: LayerConfig, *, widths: int = 0, heads: int = 0
) -> LayerConfig:
    """The layer with its choices so many places up or down, as far as there are any."""
    choices = space.layers[layer.index]
    return LayerConfig(
        index=layer.index,
        mlp_width=_moved(choices.mlp_widths, layer.mlp_width, widths),
        heads=_moved(choices.heads, layer.heads, heads),
    )


def _moved(choices: tuple[int, ...], value: int, places: int) -> int:
    return choices[min(max(choices.index(value) + places, 0), len(choices) - 1)]


def _usual(choices: LayerChoices, kept: Mapping[int, LayerConfig]) -> LayerConfig:
    """A layer as wide as the layers kept are in the mean."""
    width = np.mean([layer.mlp_width for layer in kept.values()])
    heads = np.mean([layer.heads for layer in kept.values()])
    return LayerConfig(
        index=choices.index,
        mlp_width=min(choices.mlp_widths, key=lambda one: abs(one - width)),
        heads=min(choices.heads, key=lambda one: abs(one - heads)),
    )
