"""The steps that lead from a precision that was asked for back to fp32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx

from hwsearch.export.manifest import Precision
from hwsearch.runtime.onnx_int8 import weight_products
from hwsearch.runtime.onnx_precision import (
    HalfPrecision,
    always_kept,
    blocks_of,
    lowered,
    nodes_of,
)
from hwsearch.runtime.onnx_types import element_types

Part = Literal["encoder", "decoder"]
# Names of matrix products to a model with these in int8; a model of low precision to the relative
# errors that its blocks end with, in the order of `blocks_of`.
Quantise = Callable[[list[str]], onnx.ModelProto]
Drift = Callable[[onnx.ModelProto], list[float]]

# The share of blocks that a step keeps in fp32, and how many such steps there are before all are.
_BLOCKS_A_STEP = 1 / 4
_BLOCK_STEPS = 2


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: its name, its model, and the blocks that it keeps in fp32."""

    name: str
    model: onnx.ModelProto
    fp32_blocks: tuple[str, ...] = ()


def rungs(
    precision: Precision, source: onnx.ModelProto, *, quantise: Quantise, drift: Drift
) -> Iterator[Rung]:
    """Models of a float32 encoder or decoder, the fastest first, the last one `source` itself.

    Each is made when it is asked for. Coordinates stay in fp32 throughout.

    Args:
        precision: what was asked for.
        source: the float32 model.
        quantise: makes int8 models of it.
        drift: finds which blocks lose the most.
    """
    if precision == "int8":
        products = products_of(source.graph)
        in_mlps = [name for name in products if "/mlp/" in name]
        kept = always_kept(source.graph, "fp16") | nodes_of(source.graph, "norms")
        for name, chosen in (("int8", products), ("int8 in MLPs alone", in_mlps)):
            model = lowered(quantise(chosen), "fp16", keep=kept)
            yield Rung(f"{name}, the rest fp16, norms fp32", model)
    if precision != "fp32":
        yield from _half_rungs(source, "bf16" if precision == "bf16" else "fp16", drift)
    yield Rung("fp32", source)


def products_of(graph: onnx.GraphProto) -> list[str]:
    """The products with a constant matrix that int8 is for: all but those of coordinates."""
    prompts = nodes_of(graph, "prompts")
    return [name for name in weight_products(graph) if name not in prompts]


def block_ends(model: onnx.ModelProto) -> dict[str, str]:
    """The last value of each block, which models of all precisions have by the same name."""
    types = element_types(model)
    ends = {}
    for block, nodes in blocks_of(model.graph).items():
        last = [node.output[0] for node in model.graph.node if node.name in nodes][-1]
        if types[last] == onnx.TensorProto.FLOAT:
            ends[block] = last
    return ends


def _half_rungs(source: onnx.ModelProto, half: HalfPrecision, drift: Drift) -> Iterator[Rung]:
    kept = always_kept(source.graph, half)
    yield Rung(half, lowered(source, half, keep=kept))
    kept |= nodes_of(source.graph, "norms")
    yield Rung(f"{half}, norms fp32", lowered(source, half, keep=kept))
    kept |= nodes_of(source.graph, "attention")
    yield Rung(f"{half}, norms and attention fp32", lowered(source, half, keep=kept))
    kept |= nodes_of(source.graph, "residuals")
    blocks = blocks_of(source.graph)
    ends = list(block_ends(source))
    chosen: list[str] = []
    for _ in range(_BLOCK_STEPS):
        errors = drift(lowered(source, half, keep=kept))
        candidates = [block for block in _worst_first(ends, errors) if block not in chosen]
        chosen += candidates[: math.ceil(len(ends) * _BLOCKS_A_STEP)]
        kept = kept.union(*(blocks[block] for block in chosen))
        yield Rung(
            f"{half}, norms, attention and {len(chosen)} of {len(ends)} blocks fp32",
            lowered(source, half, keep=kept),
            tuple(block for block in ends if block in chosen),
        )


def _worst_first(blocks: list[str], errors: list[float]) -> list[str]:
    """Blocks by how much the error grows in them; where it becomes infinite, it grows the most."""
    grown = {}
    before = 0.0
    for block, error in zip(blocks, errors, strict=True):
        grown[block] = 0.0 if math.isinf(before) else error - before
        before = error
    return sorted(blocks, key=lambda block: -grown[block])
