"""What the columns of a feature matrix are, so that the same models serve any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

SOURCE = "source_ms"


@dataclass(frozen=True)
class FeatureSchema:
    """Names of a matrix's columns, and what each group of them is good for.

    Attributes:
        names: all columns in their order; every value is zero or positive.
        costs: work that is summed over operators: what a linear model multiplies by a time.
        shape: what tells two subnets apart, for models that measure distance or split.
        sizes: a baseline's name and the one column that it draws a straight line over.
        table: work by choice (an MLP's width, heads), for a table of block times; may be empty.
        bends: what grows faster than the work does, for sums whose weights can't be negative; may
            be empty.
        operators: fewer columns than `costs`, with the work of like operators added up in
            whichever block they stand; empty where `costs` tells no kinds of blocks apart.
    """

    names: tuple[str, ...]
    costs: tuple[str, ...]
    shape: tuple[str, ...]
    sizes: tuple[tuple[str, str], ...]
    table: tuple[str, ...] = ()
    bends: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()

    def places(self, names: Sequence[str]) -> tuple[int, ...]:
        """Places of the named columns in a row."""
        place = {name: number for number, name in enumerate(self.names)}
        return tuple(place[name] for name in names)

    def with_source(self) -> FeatureSchema:
        """The same with one more column: another target's predicted latency, in milliseconds."""
        return replace(self, names=(*self.names, SOURCE))
