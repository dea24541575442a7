"""What a device can't be expected to run, by what it could not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from hwsearch.records import Deployment
from hwsearch.search.rounds import Round


def too_much(rounds: Iterable[Round]) -> Callable[[Deployment], bool]:
    """Tells what has all that something has which could not be run, as where memory is short.

    What failed counts only as long as neither it nor anything that has all of it ran on some
    occasion: it may have failed for another reason than its size.
    """
    rows = [row for measured in rounds for row in measured.latencies_ms]
    failed = {one for one, latencies_ms in rows if math.inf in latencies_ms}
    ran = {one for one, latencies_ms in rows if math.inf not in latencies_ms}
    borders = [one for one in failed if not any(_has_all_of(other, one) for other in ran)]
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
