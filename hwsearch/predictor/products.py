"""Analytic products of a described architecture: from named sizes to summed costs.

A stack of layers that is described by a few numbers (how many layers, how wide, how wide inside)
spends time in proportion to products of them: layers × width × hidden width for the feed-forward
parts, layers × width² for projections, layers alone for what each launch costs. Any table whose
columns have one of the roles below gets such products, and with them the models of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import UsageError
from hwsearch.predictor.schema import FeatureSchema

Array = NDArray[np.float64]
# How many layers; then means over them: embedding width, hidden width of the feed-forward part,
# heads of self-attention and of cross-attention, and how many layers of the other stack
# cross-attention reads.
Role = Literal["layers", "width", "hidden", "heads", "cross_heads", "cross_span"]

# The factors of each product. "memory_width" is the width of the stack that this one reads.
PRODUCTS: tuple[tuple[str, ...], ...] = (
    ("width",),  # embedding and output projection
    ("layers",),  # launches
    ("layers", "width"),  # norms, residual sums
    ("layers", "width", "width"),  # attention's projections at full width
    ("layers", "width", "hidden"),  # feed-forward part
    ("layers", "heads"),
    ("layers", "width", "heads"),
    ("layers", "cross_heads"),
    ("layers", "width", "cross_heads"),
    ("layers", "cross_span"),
    ("layers", "cross_span", "cross_heads"),
    ("layers", "cross_span", "memory_width"),  # keys and values of all layers that are read
)
WEIGHTS = "weights"


@dataclass(frozen=True)
class Column:
    """What one column of a table of architectures says."""

    name: str
    stack: str
    role: Role


@dataclass(frozen=True)
class ProductBuilder:
    """Turns rows of architectures into rows of analytic products.

    Attributes:
        columns: what the table's columns are, in their order; a stack has a role at most once.
        reads: for a stack with cross-attention, the stack that it reads.

    The matrix holds the columns themselves, their products, and `weights`: about how many
    parameters the layers have.

    Raises:
        UsageError: two columns say the same, a stack lacks its layers or its width, or one reads
            a stack that no column describes.
    """

    columns: tuple[Column, ...]
    reads: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the columns against each other."""
        if len(self._place) < len(self.columns):
            raise UsageError("Two columns have the same role in one stack: leave one out.")
        for stack in (*self._stacks, *self.reads.values()):
            for role in ("layers", "width"):
                if (stack, role) not in self._place:
                    raise UsageError(f"No column gives the {role} of the stack {stack!r}.")

    @cached_property
    def schema(self) -> FeatureSchema:
        """Names and groups of the columns of `matrix`."""
        raw = tuple(column.name for column in self.columns)
        products = tuple(name for name, _ in self._products)
        return FeatureSchema(
            names=(*raw, *products, WEIGHTS),
            costs=products,
            shape=raw,
            sizes=(("weights_only", WEIGHTS),),
        )

    def matrix(self, table: Array) -> Array:
        """The features of the rows, float64 of shape (n, len(schema.names)).

        Args:
            table: (n, len(columns)), no value negative.

        Raises:
            UsageError: the table has another shape, or a value that is negative or not finite.
        """
        if table.ndim != 2 or table.shape[1] != len(self.columns):
            raise UsageError(
                f"A table of shape {table.shape} can't be used: give a row an architecture and "
                f"{len(self.columns)} columns."
            )
        if not (np.isfinite(table).all() and (table >= 0).all()):
            raise UsageError("Sizes of an architecture have to be finite and not negative.")
        products = [table[:, places].prod(axis=1) for _, places in self._products]
        return np.column_stack([table, *products, self._weights(table)])

    @cached_property
    def _stacks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column.stack for column in self.columns))

    @cached_property
    def _place(self) -> dict[tuple[str, str], int]:
        return {(column.stack, column.role): at for at, column in enumerate(self.columns)}

    @cached_property
    def _products(self) -> tuple[tuple[str, list[int]], ...]:
        """Name and factors' places of every product whose factors are all there."""
        found = []
        for stack in self._stacks:
            for factors in PRODUCTS:
                places = [self._factor(stack, factor) for factor in factors]
                known = [place for place in places if place is not None]
                if len(known) == len(places):
                    found.append((f"{stack}: {' × '.join(factors)}", known))
        return tuple(found)

    def _factor(self, stack: str, factor: str) -> int | None:
        if factor == "memory_width":
            return self._place.get((self.reads.get(stack, ""), "width"))
        return self._place.get((stack, factor))

    def _weights(self, table: Array) -> Array:
        """Four square projections for each attention, two of the feed-forward part."""
        total = np.zeros(len(table))
        for stack in self._stacks:
            layers, width = (table[:, self._place[stack, role]] for role in ("layers", "width"))
            attentions = 1 + ((stack, "cross_heads") in self._place)
            hidden = self._place.get((stack, "hidden"))
            inner = 0.0 if hidden is None else table[:, hidden]
            total += layers * width * (4 * attentions * width + 2 * inner)
        return total


def columns_by_suffix(names: Sequence[str], roles: Mapping[str, Role]) -> tuple[Column, ...]:
    """Columns whose names are a stack and one of some endings, such as `encoder_layer_num`.

    Args:
        names: the table's columns that describe the architecture.
        roles: ending → role, such as `{"layer_num": "layers"}`.

    Raises:
        UsageError: a name has none of the endings.
    """
    found = []
    for name in names:
        ending = next((ending for ending in roles if name.endswith(f"_{ending}")), None)
        if ending is None:
            known = ", ".join(roles)
            raise UsageError(f"The column {name!r} has no known ending: take of {known}.")
        found.append(Column(name, name.removesuffix(f"_{ending}"), roles[ending]))
    return tuple(found)
