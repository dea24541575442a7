"""The table: every member of a restricted space with its accuracy and its measured latency."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from hwsearch.errors import DataError, UsageError
from hwsearch.files import replace_file
from hwsearch.records import (
    Conditions,
    Framing,
    LayerConfig,
    Milliseconds,
    Record,
    SamGeometry,
    Share,
    SubnetConfig,
    Target,
)
from search_study.restricted import RestrictedSpace

Array = NDArray[np.float64]

RESOLUTION = "resolution"


class AccuracyConditions(Record):
    """What the accuracies were found on: mean IoU, ground-truth boxes, mask by predicted IoU."""

    data: str
    data_fingerprint: str
    split: str
    framing: Framing
    views: PositiveInt
    objects: PositiveInt


class LatencyConditions(Record):
    """Where and how the latencies were measured; `marked` of them are not to be trusted."""

    target: Target
    noise_floor_percent: float | None
    marked: int
    conditions: Conditions


class SearchTable(Record):
    """Accuracy and latency of every member of a restricted space.

    `choices` has a column for each choice: `resolution` in pixels, and for each group its
    `mlp_width` and `heads`, both 0 where the group is left out. All columns are as long, and row k
    of all of them is one member.
    """

    schema_version: Literal[1] = 1
    supernet_id: str
    weights_digest: str
    geometry: SamGeometry
    restricted: RestrictedSpace
    accuracy: AccuracyConditions
    latency: LatencyConditions
    choices: dict[str, tuple[int, ...]]
    mious: tuple[Share, ...] = Field(min_length=1)
    latencies_ms: tuple[Milliseconds, ...]

    @model_validator(mode="after")
    def _every_member_once(self) -> Self:
        lengths = {len(self.mious), len(self.latencies_ms), *map(len, self.choices.values())}
        if lengths != {self.restricted.space.size} or len(set(self.members)) < len(self.mious):
            raise ValueError(
                f"{len(self.mious)} rows don't hold each of the {self.restricted.space.size} "
                "members once"
            )
        return self

    @cached_property
    def members(self) -> tuple[SubnetConfig, ...]:
        """The members in the order of the rows; `restricted.expand` gives their subnets."""
        groups = range(len(self.restricted.groups))
        members = []
        for row in range(len(self.mious)):
            kept = [group for group in groups if self.choices[f"group{group}.heads"][row]]
            layers = [
                LayerConfig(
                    index=group,
                    mlp_width=self.choices[f"group{group}.mlp_width"][row],
                    heads=self.choices[f"group{group}.heads"][row],
                )
                for group in kept
            ]
            resolution = self.choices[RESOLUTION][row]
            members.append(SubnetConfig(resolution=resolution, layers=tuple(layers)))
        return tuple(members)

    @cached_property
    def subnets(self) -> tuple[SubnetConfig, ...]:
        """The supernet's subnet of each row."""
        return tuple(self.restricted.expand(member) for member in self.members)

    @cached_property
    def rows(self) -> dict[SubnetConfig, int]:
        """Member → its row."""
        return {member: row for row, member in enumerate(self.members)}

    @cached_property
    def points(self) -> Array:
        """(n, 2): accuracy and latency in milliseconds."""
        return np.column_stack([self.mious, self.latencies_ms])


def choice_columns(
    restricted: RestrictedSpace, members: Iterable[SubnetConfig]
) -> dict[str, tuple[int, ...]]:
    """The columns `choices` of some members."""
    rows = []
    for member in members:
        kept = {layer.index: layer for layer in member.layers}
        row = {RESOLUTION: member.resolution}
        for group in range(len(restricted.groups)):
            layer = kept.get(group)
            row[f"group{group}.mlp_width"] = layer.mlp_width if layer else 0
            row[f"group{group}.heads"] = layer.heads if layer else 0
        rows.append(row)
    return {name: tuple(row[name] for row in rows) for name in rows[0]}


def save_table(table: SearchTable, path: Path) -> None:
    """Write a table as compressed JSON; the same table always gives the same bytes."""
    with replace_file(path) as temporary:
        temporary.write_bytes(gzip.compress(table.to_json().encode(), compresslevel=9, mtime=0))


def load_table(path: Path) -> SearchTable:
    """Read a table.

    Raises:
        DataError: there is no such file, or it holds no table.
    """
    try:
        return SearchTable.from_json(gzip.decompress(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(
            f"There is no table {path}: make one with benchmarks/build_search_table.py."
        ) from None
    except (OSError, EOFError, UsageError) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"{path} holds no table of a search space ({reason}).") from None


def reference_point(table: SearchTable) -> tuple[float, float]:
    """Of all hypervolumes: the table's worst accuracy, and the largest member's latency.

    So either end of the front counts for nothing by itself, and a share of the hypervolume is one
    of what there is to be found. The greatest latency of all is that of a member whose measurement
    went wrong, as of many hundred one does.
    """
    largest = table.rows[table.restricted.space.largest]
    return min(table.mious), table.latencies_ms[largest]
