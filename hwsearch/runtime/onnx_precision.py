"""An ONNX graph in fp16 or bf16, but for the nodes that have to stay in fp32.

TensorRT's networks are strongly typed, so a graph says for every node what it computes in. Casts
stand only where a value passes from one precision to another, once for each value: nodes in fp32
that follow each other exchange fp32. (The converters of onnxconverter-common and ONNX Runtime put
casts around every single node that stays, which rounds between them, and know no bf16.)

Inputs and outputs of the graph stay float32.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, get_args

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_types import element_types

HalfPrecision = Literal["fp16", "bf16"]
Kind = Literal["norms", "attention", "prompts", "residuals", "convolutions"]

ELEMENT_TYPES: dict[HalfPrecision, int] = {
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
}
_SUFFIXES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}

# Names of nodes begin with the modules that they stem from (`onnx_graph`).
_PATTERNS: dict[Kind, re.Pattern[str]] = {
    "norms": re.compile(r"/LayerNormalization(_\d+)?$"),
    # scores, relative positions, softmax and mixing; the projections before and after are not
    "attention": re.compile(
        r"/(attn|\w*self_attn|cross_attn_\w+|final_attn_\w+)/"
        r"(?!(qkv|proj|[qkv]_proj|out_proj)/)"
    ),
    # pixel coordinates and their sines: between 512 and 1024 fp16 knows only halves of a pixel
    "prompts": re.compile(r"^/prompt_encoder/"),
    # ONNX has them in bf16 only from opset 22 on, and TensorRT-RTX 1.7 can't build transposed ones
    "convolutions": re.compile(r"/Conv(Transpose)?(_\d+)?$"),
    # sums of a block's input and what it adds, and the position table
    "residuals": re.compile(r"^/((blocks\.\d+|patch_embed)/Add|mask_decoder/.*layers\.\d+/Add)"),
}
_BLOCK = re.compile(r"^/(?:mask_decoder/)?((?:transformer\.layers|blocks)\.\d+)/")
_PART = re.compile(r"^/(?:mask_decoder/)?([^/]+)/")


def nodes_of(graph: onnx.GraphProto, *kinds: Kind) -> frozenset[str]:
    """Names of the nodes of some kinds, in an encoder or decoder of `onnx_export`."""
    return frozenset(
        node.name for node in graph.node if any(_PATTERNS[kind].search(node.name) for kind in kinds)
    )


def always_kept(graph: onnx.GraphProto, half: HalfPrecision) -> frozenset[str]:
    """Names of the nodes that are always in fp32: coordinates, and beside bf16 convolutions."""
    kept = nodes_of(graph, "prompts")
    return kept | nodes_of(graph, "convolutions") if half == "bf16" else kept


def blocks_of(graph: onnx.GraphProto) -> dict[str, frozenset[str]]:
    """Names of the nodes of each block: transformer layers, and what stands outside of them.

    Blocks come in the order of the graph; the prompt encoder is none of them.
    """
    prompts = nodes_of(graph, "prompts")
    blocks: dict[str, set[str]] = {}
    for node in graph.node:
        if node.name not in prompts:
            match = _BLOCK.match(node.name) or _PART.match(node.name)
            blocks.setdefault(match.group(1) if match else "rest", set()).add(node.name)
    return {name: frozenset(nodes) for name, nodes in blocks.items()}


def lowered(
    model: onnx.ModelProto, precision: HalfPrecision, *, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """A copy of a float32 model that computes in `precision`.

    Args:
        model: float32, with its weights in the message; int8 weights between QuantizeLinear and
            DequantizeLinear stay what they are.
        precision: what nodes compute in.
        keep: names of the nodes that stay in float32.

    Raises:
        ExportError: `keep` names a node that is not there, or the model's types can't be told.
    """
    unknown = set(keep) - {node.name for node in model.graph.node}
    if unknown:
        raise ExportError(f"The graph has no node '{min(unknown)}' that could stay in fp32.")
    return _Lowering(model, ELEMENT_TYPES[precision]).run(frozenset(keep))


class _Lowering:
    """One pass over a graph; `types` are those that values have in the new one."""

    def __init__(self, model: onnx.ModelProto, low: int) -> None:
        self._source = model
        self._low = low
        self._before = element_types(model)
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        self._types = {name: of for name, of in self._before.items() if name not in self._weights}
        self._taken: set[tuple[str, int]] = set()  # casts and weights that are written already
        self._result = onnx.ModelProto()
        self._result.CopyFrom(_without_weights_and_nodes(model))
        self._graph = self._result.graph

    def run(self, keep: frozenset[str]) -> onnx.ModelProto:
        for node in self._source.graph.node:
            self._add(node, TensorProto.FLOAT if node.name in keep else self._low)
        for output in self._graph.output:
            if self._types[output.name] != output.type.tensor_type.elem_type:
                self._cast_output(output.name)
        return self._result

    def _add(self, source: onnx.NodeProto, wanted: int) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(source)
        for index, name in enumerate(node.input):
            if name:
                is_float = self._before[name] == TensorProto.FLOAT
                node.input[index] = self._as(name, wanted if is_float else self._before[name])
        for name in node.output:
            is_float = self._before[name] == TensorProto.FLOAT
            self._types[name] = wanted if is_float else self._before[name]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = wanted
            if node.op_type == "Constant" and self._before[node.output[0]] == TensorProto.FLOAT:
                attribute.t.CopyFrom(converted(attribute.t, wanted, attribute.t.name))
        self._graph.node.append(node)

    def _as(self, name: str, wanted: int) -> str:
        """The name under which a value is there in the type `wanted`."""
        weight = self._weights.get(name)
        has = weight.data_type if weight else self._types[name]
        plain = has == wanted
        new = name if plain else f"{name}.{_SUFFIXES[wanted]}"
        if (name, wanted) in self._taken or (plain and not weight):
            return new
        self._taken.add((name, wanted))
        if weight:
            self._graph.initializer.append(weight if plain else converted(weight, wanted, new))
        else:
            self._graph.node.append(
                helper.make_node("Cast", [name], [new], name=f"{new}/Cast", to=wanted)
            )
        return new

    def _cast_output(self, name: str) -> None:
        inner = f"{name}.{_SUFFIXES[self._types[name]]}"
        for node in self._graph.node:
            for names in (node.input, node.output):
                for place, used in enumerate(names):
                    if used == name:
                        names[place] = inner
        self._graph.node.append(
            helper.make_node("Cast", [inner], [name], name=f"{name}/Cast", to=TensorProto.FLOAT)
        )


def converted(weight: onnx.TensorProto, wanted: int, name: str) -> onnx.TensorProto:
    """A float32 tensor in `wanted` (fp16 or bf16), rounded to nearest; too large becomes inf."""
    if wanted == TensorProto.FLOAT:
        same = onnx.TensorProto()
        same.CopyFrom(weight)
        same.name = name
        return same
    values = np.frombuffer(weight.raw_data, np.float32) if weight.raw_data else _numbers(weight)
    rounded = torch.from_numpy(values.copy()).to(_DTYPES[wanted])
    return onnx.TensorProto(
        name=name,
        dims=weight.dims,
        data_type=wanted,
        raw_data=rounded.view(torch.int16).numpy().tobytes(),
    )


def _numbers(weight: onnx.TensorProto) -> np.ndarray:
    return onnx.numpy_helper.to_array(weight).astype(np.float32).ravel()


def _without_weights_and_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The frame of a model; copying the whole and clearing it would copy every weight."""
    frame = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        opset_import=model.opset_import,
        metadata_props=model.metadata_props,
    )
    frame.graph.name = model.graph.name
    frame.graph.input.extend(model.graph.input)
    frame.graph.output.extend(model.graph.output)
    return frame


HALF_PRECISIONS: tuple[HalfPrecision, ...] = get_args(HalfPrecision)
