"""What a device can't be expected to run, by what it could not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from hwsearch.records import Deployment


def too_much(measured_ms: Mapping[Deployment, Sequence[float]]) -> Callable[[Deployment], bool]:
    """Tells what has all that something has which could not be run, as where memory is short.

    What failed counts only as long as nothing that has all of it did run: it may have failed for
    another reason than its size.

    Args:
        measured_ms: latencies, one a target; infinite where the deployment could not be run.
    """
    failed = [one for one, row in measured_ms.items() if math.inf in row]
    ran = [one for one, row in measured_ms.items() if math.inf not in row]
    borders = [one for one in failed if not any(_has_all_of(larger, one) for larger in ran)]
    return lambda deployment: any(_has_all_of(deployment, border) for border in borders)


def _has_all_of(one: Deployment, other: Deployment) -> bool:
    """Whether `one` is `other` or larger in some choices and smaller in none, in its precision."""
    if one.precision != other.precision or one.subnet.resolution < other.subnet.resolution:
        return False
    kept = {layer.index: layer for layer in one.subnet.layers}
    return all(
        layer.index in kept
        and kept[layer.index].mlp_width >= layer.mlp_width
        and kept[layer.index].heads >= layer.heads
        for layer in other.subnet.layers
    )
