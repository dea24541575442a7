"""Runs a PyTorch module behind the `Runner` protocol: the reference for the other runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch

from hwsearch.errors import UsageError
from hwsearch.runtime.runner import (
    Array,
    Seconds,
    TensorSpec,
    check_inputs,
    require_open,
    time_calls,
)


class TorchRunner:
    """An eager module whose inputs and outputs have names.

    Args:
        module: called with the inputs in the order of `inputs`; gives a tensor, or a tuple of
            tensors in the order of `outputs`. It has to be in evaluation mode.
        inputs: names, shapes and dtypes of the module's arguments.
        outputs: the same of its results; shapes are not checked.
        threads: threads inside one operator while it runs; None for as many as torch is set to.
        name: what messages call it; without it, the module's class.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        threads: int | None = None,
        name: str | None = None,
    ) -> None:
        self._name = name or type(module).__name__
        self._threads = threads
        self._module: torch.nn.Module | None = module
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the module once; see `Runner.infer`."""
        module, tensors = self._prepare(inputs)
        with torch.inference_mode(), _threads(self._threads):
            results = module(*tensors)
        results = (results,) if isinstance(results, torch.Tensor) else tuple(results)
        if len(results) != len(self.outputs):
            raise UsageError(
                f"{self._name} gives {len(results)} outputs: {len(self.outputs)} were named."
            )
        return {
            spec.name: result.numpy() for spec, result in zip(self.outputs, results, strict=True)
        }

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        """Time `n` runs on the CPU; see `Runner.time`."""
        module, tensors = self._prepare(inputs)
        with torch.inference_mode(), _threads(self._threads):
            return time_calls(lambda: module(*tensors), n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._module = None

    def _prepare(self, inputs: Mapping[str, Array]) -> tuple[torch.nn.Module, list[torch.Tensor]]:
        module = require_open(self._module, self._name)
        check_inputs(self.inputs, inputs)
        return module, [torch.from_numpy(inputs[spec.name]) for spec in self.inputs]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Torch's threads are a setting of the whole process, which gets its own back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
