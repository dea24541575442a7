"""How long each layer of an engine takes, as TensorRT tells it while the engine runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerTime:
    """A layer, by TensorRT's name of it, and its mean time in milliseconds."""

    name: str
    mean_ms: float


def layer_profiler(trt: Any, sums_ms: dict[str, float]) -> Any:  # noqa: ANN401 - chosen at run time
    """An IProfiler that adds layers' times to `sums_ms`, in the order of the engine."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # its base is chosen at run time
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            sums_ms[layer_name] = sums_ms.get(layer_name, 0.0) + ms

    return Profiler()
