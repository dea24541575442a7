"""A deployment as a flat table of small integers, the form in which a sampler handles it.

Each value is the place of a choice in its list, which ascends for widths, heads and resolutions,
and goes from exact to coarse for precisions. Choices without an alternative have no parameter. The
widths and heads of a layer that is left out are parameters all the same: the table has one shape,
whatever the depth.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.space import LayerChoices, SearchSpace

RESOLUTION = "resolution"
PRECISION = "precision"


def parameter_sizes(space: DeploymentSpace) -> dict[str, int]:
    """Parameter name → how many values it has (they run from 0)."""
    subnets = space.subnets
    sizes = {PRECISION: len(space.precisions), RESOLUTION: len(subnets.resolutions)}
    for choices in subnets.layers:
        sizes[_keep(choices)] = 2 if choices.removable else 1
        sizes[_width(choices)] = len(choices.mlp_widths)
        sizes[_heads(choices)] = len(choices.heads)
    return {name: size for name, size in sizes.items() if size > 1}


def decode(space: DeploymentSpace, values: Mapping[str, int]) -> Deployment:
    """The deployment that a table of parameters means.

    Where too few layers are kept, the most important of those left out come back.
    """
    return Deployment(
        subnet=_decode_subnet(space.subnets, values),
        precision=space.precisions[values.get(PRECISION, 0)],
    )


def encode(space: DeploymentSpace, deployment: Deployment) -> dict[str, int]:
    """The table of parameters that means `deployment`; layers left out count as full ones.

    Raises:
        UsageError: `deployment` is not in the space.
    """
    space.validate_deployment(deployment)
    config = deployment.subnet
    kept = {layer.index: layer for layer in config.layers}
    values = {
        PRECISION: space.precisions.index(deployment.precision),
        RESOLUTION: space.subnets.resolutions.index(config.resolution),
    }
    for choices in space.subnets.layers:
        layer = kept.get(choices.index, choices.largest)
        values[_keep(choices)] = int(choices.index in kept)
        values[_width(choices)] = choices.mlp_widths.index(layer.mlp_width)
        values[_heads(choices)] = choices.heads.index(layer.heads)
    sizes = parameter_sizes(space)
    return {name: value for name, value in values.items() if name in sizes}


def _decode_subnet(space: SearchSpace, values: Mapping[str, int]) -> SubnetConfig:
    dropped = [index for index in space.removal_order if not values.get(_keep_name(index), 1)]
    dropped = dropped[: len(space.layers) - space.min_depth]
    return SubnetConfig(
        resolution=space.resolutions[values.get(RESOLUTION, 0)],
        layers=tuple(
            LayerConfig(
                index=choices.index,
                mlp_width=choices.mlp_widths[values.get(_width(choices), 0)],
                heads=choices.heads[values.get(_heads(choices), 0)],
            )
            for choices in space.layers
            if choices.index not in dropped
        ),
    )


def _keep_name(index: int) -> str:
    return f"layer{index:02d}.keep"


def _keep(choices: LayerChoices) -> str:
    return _keep_name(choices.index)


def _width(choices: LayerChoices) -> str:
    return f"layer{choices.index:02d}.mlp_width"


def _heads(choices: LayerChoices) -> str:
    return f"layer{choices.index:02d}.heads"
