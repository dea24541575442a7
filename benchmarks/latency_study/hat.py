"""Latency sets in the form of HAT (Hardware-Aware Transformers, Wang et al., ACL 2020)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import DataError
from hwsearch.predictor.products import ProductBuilder, Role, columns_by_suffix

Array = NDArray[np.float64]

LATENCIES = ("latency_mean_encoder", "latency_mean_decoder")
ROLES: Mapping[str, Role] = {
    "embed_dim": "width",
    "layer_num": "layers",
    "ffn_embed_dim_avg": "hidden",
    "self_attention_heads_avg": "heads",
    "ende_attention_heads_avg": "cross_heads",
    "arbitrary_ende_attn_avg": "cross_span",
}
READS = {"decoder": "encoder"}
HELD_OUT = 200
SPLITS = 5


@dataclass(frozen=True)
class LatencySet:
    """One file: architectures and their latencies, in no order that a model may use.

    Attributes:
        name: the file's, without its ending.
        table: (n, c) the columns that describe the architecture.
        latencies_ms: (n,) encoder plus decoder, in the file's own milliseconds.
        builder: makes features of the table.
    """

    name: str
    table: Array
    latencies_ms: Array
    builder: ProductBuilder


def read_sets(folder: Path) -> list[LatencySet]:
    """Every CSV file of a folder, by name.

    Raises:
        DataError: there is none, or one lacks a column or holds something other than numbers.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise DataError(f"There is no CSV file in {folder}: name a folder in the form of HAT.")
    return [_read(path) for path in files]


def splits(rows: int, train: int, *, seed: int) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Training and test rows of each split, drawn at random; the test rows are 200."""
    for number in range(SPLITS):
        order = np.random.default_rng((seed, number)).permutation(rows)
        yield order[HELD_OUT : HELD_OUT + train], order[:HELD_OUT]


def _read(path: Path) -> LatencySet:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8: name a folder in the form of HAT.") from None
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        names = [name for name in reader.fieldnames or () if not name.startswith("latency_")]
        missing = set(LATENCIES) - set(reader.fieldnames or ())
        if missing or not names:
            raise DataError(f"{path} is not in the form of HAT: it lacks {', '.join(LATENCIES)}.")
        try:
            rows = [
                [*(float(row[name]) for name in names), sum(float(row[name]) for name in LATENCIES)]
                for row in reader
            ]
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} has a value that is no number: {error}.") from None
    values = np.array(rows)
    latencies = values[:, -1] if len(values) else np.empty(0)
    if not (np.isfinite(latencies) & (latencies > 0)).all() or not len(latencies):
        raise DataError(f"{path} has no rows, or a latency that is not positive.")
    columns = columns_by_suffix(names, ROLES)
    stacks = {column.stack for column in columns}
    reads = {stack: READS[stack] for stack in stacks & set(READS)}
    return LatencySet(path.stem, values[:, :-1], latencies, ProductBuilder(columns, reads))
