"""Writes an ONNX graph node by node, from torch modules and their weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import Tensor, nn

from hwsearch.errors import ExportError

# The first opset with Gelu as one operator. TensorRT 10.13 and later, TensorRT-RTX, ONNX Runtime
# and OpenVINO all know it.
OPSET = 20
# IR 10 came with opset 21; the version before it is read by every runtime that knows opset 20.
IR_VERSION = 9

Size = int | str
Attribute = int | float | str | Sequence[int]


class GraphWriter:
    """The nodes and weights of one graph, in the order in which they are added.

    A value is known by its name. Names begin with the open scopes, so that a runtime's layer
    profile shows which block a node belongs to: `/blocks.3/attn/qkv/MatMul`.
    """

    def __init__(self, name: str) -> None:
        # All goes into the model at once: to put a graph together from parts, as `onnx.helper`
        # does, copies every weight twice.
        self._model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="hwsearch")
        self._model.opset_import.append(helper.make_opsetid("", OPSET))
        self._graph = self._model.graph
        self._graph.name = name
        self._scopes: list[str] = []
        self._taken: set[str] = set()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name` before the names of all that is added inside."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, name: str, shape: Sequence[Size]) -> str:
        """Add a float32 input; a size that is a string is free and named so."""
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
        self._graph.input.append(info)
        return name

    def output(self, name: str, value: str, shape: Sequence[Size]) -> None:
        """Make `value` the float32 output `name`."""
        for node in self._graph.node:
            _replace(node.input, value, name)
            _replace(node.output, value, name)
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
        self._graph.output.append(info)

    def weight(self, name: str, values: Tensor | np.ndarray) -> str:
        """Add a constant tensor, in float32."""
        if isinstance(values, Tensor):
            # torch lays a transposed matrix out anew several times as fast as NumPy
            values = values.detach().cpu().contiguous().numpy()
        return self._constant(self._unique(name), values.astype(np.float32, copy=False))

    def integers(self, *values: int) -> str:
        """A one-dimensional int64 constant, shared by all who ask for the same values."""
        name = "integers." + "_".join(map(str, values))
        return self._shared(name, np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """An int64 constant without dimensions."""
        name = f"integer.{value}"
        return self._shared(name, np.array(value, dtype=np.int64))

    def node(
        self, operator: str, *inputs: str, attributes: Mapping[str, Attribute] | None = None
    ) -> str:
        """Add a node with one output, and give the name of that output."""
        return self.split_node(operator, *inputs, outputs=1, attributes=attributes)[0]

    def split_node(
        self,
        operator: str,
        *inputs: str,
        outputs: int,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> list[str]:
        """Add a node with several outputs, and give their names."""
        name = self._unique(operator, prefix="/")
        results = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        node = helper.make_node(operator, inputs, results, name=name)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in (attributes or {}).items()
        )
        self._graph.node.append(node)
        return results

    def reshape(self, value: str, *shape: int) -> str:
        """Reshape as ONNX does: 0 keeps a size, -1 takes what is left."""
        return self.node("Reshape", value, self.integers(*shape))

    def transpose(self, value: str, *order: int) -> str:
        """Reorder all dimensions."""
        return self.node("Transpose", value, attributes={"perm": order})

    def linear(self, name: str, value: str, layer: nn.Linear) -> str:
        """`torch.nn.Linear` on the last dimension."""
        with self.scope(name):
            product = self.node("MatMul", value, self.weight("weight", layer.weight.T))
            if layer.bias is None:
                return product
            return self.node("Add", product, self.weight("bias", layer.bias))

    def layer_norm(
        self, name: str, value: str, *, weight: Tensor, bias: Tensor, epsilon: float
    ) -> str:
        """Layer normalisation over the last dimension."""
        with self.scope(name):
            scale, shift = self.weight("weight", weight), self.weight("bias", bias)
            attributes: dict[str, Attribute] = {"axis": -1, "epsilon": epsilon}
            return self.node("LayerNormalization", value, scale, shift, attributes=attributes)

    def activation(self, value: str, module: nn.Module) -> str:
        """ReLU or the exact GELU.

        Raises:
            ExportError: another activation, which no Segment Anything model has.
        """
        if isinstance(module, nn.ReLU):
            return self.node("Relu", value)
        if isinstance(module, nn.GELU) and module.approximate == "none":
            return self.node("Gelu", value)
        raise ExportError(
            f"The activation {module} can't be exported: Segment Anything has ReLU and exact GELU."
        )

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The finished model."""
        helper.set_model_props(self._model, dict(metadata))
        return self._model

    def _shared(self, name: str, values: np.ndarray) -> str:
        """A constant that is there once, whoever asks for it."""
        if name in self._taken:
            return name
        self._taken.add(name)
        return self._constant(name, values)

    def _constant(self, name: str, values: np.ndarray) -> str:
        self._graph.initializer.add(
            name=name,
            dims=values.shape,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            raw_data=values.tobytes(),
        )
        return name

    def _unique(self, name: str, *, prefix: str = "") -> str:
        separator = "/" if prefix else "."
        full = prefix + separator.join([*self._scopes, name])
        candidates = itertools.chain([full], (f"{full}_{n}" for n in itertools.count(1)))
        unique = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(unique)
        return unique


def _replace(names: list[str], old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new
