"""Where nothing meets the targets: how far the nearest is off, and what would have to give.

The nearest deployment is as fast as the space allows, so that going lower means to leave the
space. For each kind of choice (resolution, depth, MLP widths, heads, precision) the predictor is
asked how far that choice alone would have to go below the nearest, all others as they are. The one
that has to give least is what binds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from hwsearch.records import (
    Deployment,
    LayerConfig,
    Milliseconds,
    Record,
    SamGeometry,
    Share,
    SubnetConfig,
)
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Latencies, Limits
from hwsearch.space import SearchSpace

Step = tuple[str, str, float, SubnetConfig]  # now, needed, share that is left, subnet
Way = tuple[str, str, float, Deployment]
Choice = Literal["resolution", "depth", "MLP widths", "heads", "precision"]
WIDTH_STEP = 8  # widths of a space are multiples of it


class Distance(Record):
    """How far the nearest deployment is from the limit of one target.

    `latency_ms` was measured, as that of a `Candidate`, unless `measured` is false: then it is the
    predictor's upper bound.
    `over_percent` is negative where the limit is kept.
    """

    target: str
    limit_ms: Milliseconds
    latency_ms: Milliseconds
    over_percent: float
    measured: bool = True


class Relaxation(Record):
    """What one choice alone would have to become, and the latencies that are predicted then.

    `share` is how much of the choice would be left; where `enough` is false, even this least value
    does not meet all limits.
    """

    choice: Choice
    now: str
    needed: str
    share: Share
    latencies_ms: tuple[Milliseconds, ...]
    enough: bool


class Infeasibility(Record):
    """Why nothing fits: the nearest deployment, its distances, and what would have to give.

    `binding_target` is the one whose limit is exceeded most, `binding_choice` the choice that has
    to give least; None where no choice alone can bring the latency down. `relaxations` stand in
    that order.
    """

    nearest: Deployment
    nearest_id: str
    distances: tuple[Distance, ...]
    binding_target: str
    binding_choice: Choice | None
    relaxations: tuple[Relaxation, ...]


def explain(
    nearest: Deployment,
    *,
    space: DeploymentSpace,
    geometry: SamGeometry,
    predict: Latencies,
    latencies_ms: Sequence[float],
    limits: Limits,
    names: Sequence[str],
    measured: Sequence[bool] | None = None,
) -> Infeasibility:
    """Say how far the nearest deployment is off, and which choice binds.

    Predictions are scaled so that the nearest's is what it took.

    Args:
        nearest: the deployment that comes nearest to the limits.
        space: where it comes from.
        geometry: the full encoder's sizes.
        predict: latencies in milliseconds, also of subnets below the space.
        latencies_ms: what the nearest takes, one for each target.
        limits: what it may take.
        names: what the targets are called.
        measured: which of the latencies are measurements; by default all.
    """
    took = np.asarray(latencies_ms, dtype=np.float64)
    allowed = np.array(limits.latencies_ms)
    scale = took / predict([nearest])[0]

    def estimate(deployment: Deployment) -> tuple[float, ...]:
        return tuple((predict([deployment])[0] * scale).tolist())

    found = [
        _relaxed(choice, nearest, ways, estimate=estimate, limits=limits)
        for choice, ways in _ways_down(nearest, space, geometry).items()
    ]
    relaxations = sorted((row for row in found if row is not None), key=_ease(limits))
    return Infeasibility(
        nearest=nearest,
        nearest_id=nearest.id,
        distances=tuple(
            Distance(
                target=name,
                limit_ms=limit_ms,
                latency_ms=latency_ms,
                over_percent=100 * (latency_ms / limit_ms - 1),
                measured=is_measured,
            )
            for name, limit_ms, latency_ms, is_measured in zip(
                names,
                limits.latencies_ms,
                took.tolist(),
                measured or [True] * len(names),
                strict=True,
            )
        ),
        binding_target=names[int(np.argmax(took / allowed))],
        binding_choice=relaxations[0].choice if relaxations else None,
        relaxations=tuple(relaxations),
    )


def sentence(why: Infeasibility) -> str:
    """The same for people, in one sentence."""
    nearest = why.nearest
    worst = next(row for row in why.distances if row.target == why.binding_target)
    parts = [
        f"No subnet meets {worst.limit_ms:g} ms on {worst.target}: the nearest, "
        f"{nearest.subnet.id} ({nearest.subnet.depth} layers at {nearest.subnet.resolution} px in "
        f"{nearest.precision}), "
        + (
            f"took {worst.latency_ms:.2f} ms"
            if worst.measured
            else f"may take {worst.latency_ms:.2f} ms, by the predictor's upper bound"
        )
        + f", {worst.over_percent:.1f} % over"
    ]
    parts += [
        f"on {row.target} it is {abs(row.over_percent):.1f} % "
        f"{'over' if row.over_percent > 0 else 'within'} {row.limit_ms:g} ms"
        for row in why.distances
        if row is not worst
    ]
    parts += [_what_binds(why), f"allow at least {round_up(worst.latency_ms):g} ms there"]
    return "; ".join(part for part in parts if part) + ", or take a faster runtime or precision."


def round_up(latency_ms: float) -> float:
    """Three significant digits, never less."""
    unit = 10.0 ** (math.floor(math.log10(latency_ms)) - 2)
    return round(math.ceil(latency_ms / unit) * unit, 6)


def _what_binds(why: Infeasibility) -> str:
    if not why.relaxations:
        return "no choice of the space can go lower"
    first = why.relaxations[0]
    predicted = ", ".join(f"{latency_ms:.2f}" for latency_ms in first.latencies_ms)
    if first.enough:
        return (
            f"what binds is the space's {first.choice}: {first.needed} instead of {first.now} "
            f"would take about {predicted} ms"
        )
    return (
        f"what binds is the space's {first.choice}, but no choice alone is enough: "
        f"{first.needed} instead of {first.now} would still take about {predicted} ms"
    )


def _relaxed(
    choice: Choice,
    nearest: Deployment,
    ways: Iterator[Way],
    *,
    estimate: Callable[[Deployment], tuple[float, ...]],
    limits: Limits,
) -> Relaxation | None:
    """The first way that is enough, or else the fastest, if it is faster than the nearest."""
    fastest: Relaxation | None = None
    least = float(limits.costs(estimate(nearest))[0])
    for now, needed, share, deployment in ways:
        latencies_ms = estimate(deployment)
        cost = float(limits.costs(latencies_ms)[0])
        if cost >= least:
            continue
        least = cost
        fastest = Relaxation(
            choice=choice,
            now=now,
            needed=needed,
            share=share,
            latencies_ms=latencies_ms,
            enough=bool(limits.met(latencies_ms)[0]),
        )
        if fastest.enough:
            break
    return fastest


def _ease(limits: Limits) -> Callable[[Relaxation], tuple[bool, float]]:
    """What is enough comes first, by how much of it is left; then what brings the most."""

    def order(row: Relaxation) -> tuple[bool, float]:
        return not row.enough, -row.share if row.enough else limits.costs(row.latencies_ms)[0]

    return order


def _ways_down(
    nearest: Deployment, space: DeploymentSpace, geometry: SamGeometry
) -> Mapping[Choice, Iterator[Way]]:
    """For each choice, the deployments with less and less of it, all else as it is."""
    subnet, precision = nearest.subnet, nearest.precision

    def with_precision(steps: Iterator[Step]) -> Iterator[Way]:
        for now, needed, share, config in steps:
            yield now, needed, share, Deployment(subnet=config, precision=precision)

    return {
        "resolution": with_precision(_lower_resolutions(subnet, geometry.patch_size)),
        "depth": with_precision(_fewer_layers(subnet, space.subnets)),
        "MLP widths": with_precision(_narrower(subnet)),
        "heads": with_precision(_fewer_heads(subnet)),
        "precision": _other_precisions(nearest, space),
    }


def _lower_resolutions(subnet: SubnetConfig, patch: int) -> Iterator[Step]:
    now = subnet.resolution
    for resolution in range(now - patch, 0, -patch):
        lower = subnet.model_copy(update={"resolution": resolution})
        yield f"{now} px", f"{resolution} px", resolution / now, lower


def _fewer_layers(subnet: SubnetConfig, space: SearchSpace) -> Iterator[Step]:
    """Leaves out the least important layers first, then those that the space has to keep."""
    fixed = [index for index in reversed(subnet.indices) if index not in space.removal_order]
    order = [index for index in (*space.removal_order, *fixed) if index in subnet.indices]
    for count in range(1, subnet.depth):
        gone = set(order[:count])
        layers = tuple(layer for layer in subnet.layers if layer.index not in gone)
        left = f"{len(layers)} {'layer' if len(layers) == 1 else 'layers'}"
        fewer = SubnetConfig(resolution=subnet.resolution, layers=layers)
        yield f"{subnet.depth} layers", left, len(layers) / subnet.depth, fewer


def _narrower(subnet: SubnetConfig) -> Iterator[Step]:
    widest = max(layer.mlp_width for layer in subnet.layers)
    for most in range(widest - WIDTH_STEP, 0, -WIDTH_STEP):
        yield f"{widest} wide", f"{most} wide", most / widest, _capped(subnet, width=most)


def _fewer_heads(subnet: SubnetConfig) -> Iterator[Step]:
    now = max(layer.heads for layer in subnet.layers)
    for most in range(now - 1, 0, -1):
        yield f"{now} heads", f"{most} heads", most / now, _capped(subnet, heads=most)


def _other_precisions(nearest: Deployment, space: DeploymentSpace) -> Iterator[Way]:
    for precision in space.precisions:
        if precision != nearest.precision:
            other = Deployment(subnet=nearest.subnet, precision=precision)
            yield nearest.precision, precision, 1.0, other


def _capped(
    subnet: SubnetConfig, *, width: int | None = None, heads: int | None = None
) -> SubnetConfig:
    return SubnetConfig(
        resolution=subnet.resolution,
        layers=tuple(
            LayerConfig(
                index=layer.index,
                mlp_width=min(layer.mlp_width, width or layer.mlp_width),
                heads=min(layer.heads, heads or layer.heads),
            )
            for layer in subnet.layers
        ),
    )
