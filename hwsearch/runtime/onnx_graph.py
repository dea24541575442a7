"""Writes an ONNX graph node by node, from torch modules and their weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
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
        self._name = name
        self._scopes: list[str] = []
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
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
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def output(self, name: str, value: str, shape: Sequence[Size]) -> None:
        """Make `value` the float32 output `name`."""
        for node in self._nodes:
            _replace(node.input, value, name)
            _replace(node.output, value, name)
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def weight(self, name: str, values: Tensor | np.ndarray) -> str:
        """Add a constant tensor, in float32."""
        if isinstance(values, Tensor):
            values = values.detach().cpu().numpy()
        return self._constant(self._unique(name), values.astype(np.float32))

    def integers(self, *values: int) -> str:
        """A one-dimensional int64 constant, shared by all who ask for the same values."""
        name = "integers." + "_".join(map(str, values))
        if name in self._weights:
            return name
        return self._constant(name, np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """An int64 constant without dimensions."""
        name = f"integer.{value}"
        if name in self._weights:
            return name
        return self._constant(name, np.array(value, dtype=np.int64))

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
        self._nodes.append(node)
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
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._weights.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="hwsearch",
        )
        helper.set_model_props(model, dict(metadata))
        return model

    def _constant(self, name: str, values: np.ndarray) -> str:
        self._weights[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
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
