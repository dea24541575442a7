"""A small space with a made-up law of accuracy and latency, so that the optimum is known."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwsearch.records import LayerConfig, SamGeometry, SubnetConfig
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import SearchOutcome
from hwsearch.space import SearchSpace

Law = tuple[Callable[[SubnetConfig], float], Callable[[SubnetConfig], float]]
Search = Callable[..., SearchOutcome]

GEOMETRY = SamGeometry(
    model="custom",
    image_size=64,
    patch_size=16,
    embed_dim=32,
    depth=4,
    heads=2,
    mlp_width=64,
    window_size=4,
    global_layers=(1, 3),
    prompt_dim=16,
)
IMPORTANCE = (0.30, 0.04, 0.12, 0.07)


def law_miou(config: SubnetConfig) -> float:
    kept = {layer.index: layer for layer in config.layers}
    lost = 0.1 * (1 - config.resolution / 64)
    for index, importance in enumerate(IMPORTANCE):
        layer = kept.get(index)
        if layer is None:
            lost += importance
        else:
            narrowness = 0.7 * (1 - layer.mlp_width / 64) + 0.3 * (1 - layer.heads / 2)
            lost += 0.6 * importance * narrowness
    return 0.8 - lost


def law_ms(config: SubnetConfig) -> float:
    share = (config.resolution / 64) ** 2
    return 2 + sum(1 + share * (layer.mlp_width / 16 + 2 * layer.heads) for layer in config.layers)


@dataclass
class Lab:
    """A fake device and data set that count what they are asked."""

    bias: float = 1.0  # measured latency ÷ predicted latency
    evaluated: list[SubnetConfig] = field(default_factory=list)
    sessions: list[list[SubnetConfig]] = field(default_factory=list)
    refits: list[dict[SubnetConfig, float]] = field(default_factory=list)
    correction: float = 1.0

    def evaluate(self, config: SubnetConfig) -> float:
        self.evaluated.append(config)
        return law_miou(config)

    def predict(self, configs: Sequence[SubnetConfig]) -> np.ndarray:
        return self.correction * np.array([law_ms(config) for config in configs])

    def upper(self, configs: Sequence[SubnetConfig]) -> np.ndarray:
        return 1.02 * self.predict(configs)

    def measure(self, configs: Sequence[SubnetConfig]) -> list[float]:
        self.sessions.append(list(configs))
        return [self.bias * law_ms(config) for config in configs]

    def refit(self, configs: Sequence[SubnetConfig], latencies_ms: Sequence[float]) -> None:
        self.refits.append(dict(zip(configs, latencies_ms, strict=True)))

    @property
    def objectives(self) -> Objectives:
        return Objectives(
            evaluate=self.evaluate,
            predict=self.predict,
            upper=self.upper,
            measure=self.measure,
            refit=self.refit,
        )


def every_subnet(space: SearchSpace) -> Iterator[SubnetConfig]:
    choices = [
        [
            *(
                LayerConfig(index=layer.index, mlp_width=width, heads=heads)
                for width, heads in itertools.product(layer.mlp_widths, layer.heads)
            ),
            *([None] if layer.removable else []),
        ]
        for layer in space.layers
    ]
    for resolution, *layers in itertools.product(space.resolutions, *choices):
        kept = tuple(layer for layer in layers if layer is not None)
        if len(kept) >= space.min_depth:
            yield SubnetConfig(resolution=resolution, layers=kept)
