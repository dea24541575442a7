"""A hidden law of latency, written without the package's own arithmetic of costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hwsearch.records import LayerConfig, SamGeometry, SubnetConfig, Target
from hwsearch.space import default_space

GEOMETRY = SamGeometry(
    model="custom",
    image_size=256,
    patch_size=16,
    embed_dim=192,
    depth=12,
    heads=6,
    mlp_width=768,
    window_size=8,
    global_layers=(2, 5, 8, 11),
    prompt_dim=128,
    decoder_mlp_width=512,
)
SPACE = default_space(GEOMETRY)
TARGET = Target(
    device="cpu", device_name="Test CPU", runtime="onnxruntime", runtime_version="1.0", threads=2
)
NOISE = 0.01


def sampled(n: int, *, seed: int) -> list[SubnetConfig]:
    """Distinct subnets drawn as a profile draws them."""
    rng = np.random.default_rng(seed)
    found: dict[SubnetConfig, None] = {}
    while len(found) < n:
        found[SPACE.sample(rng)] = None
    return list(found)


def law_ms(config: SubnetConfig) -> float:
    """Blocks whose narrow operators run less efficiently, times a cache effect of the depth."""
    grid = config.resolution // 16
    decoder = 1.5 + 0.004 * grid**2
    interaction = 1 + 0.03 * math.tanh((config.depth - 9) / 2) * (grid / 16 - 0.75) * 4
    return (decoder + sum(_block_ms(layer, grid) for layer in config.layers)) * interaction


def _block_ms(layer: LayerConfig, grid: int) -> float:
    inner = 32 * layer.heads
    pixels = grid**2
    if layer.index in GEOMETRY.global_layers:
        tokens, seen = pixels, pixels
    else:
        tokens, seen = 64 * math.ceil(grid / 8) ** 2, 64
    mlp = 2 * pixels * 192 * (layer.mlp_width + 60)
    projections = 4 * tokens * 192 * (inner + 30)
    attention = 2 * tokens * seen * inner
    return 0.25 + mlp / 2e7 + projections / 1.4e7 + attention / 0.3e7


def measured_ms(configs: Sequence[SubnetConfig], *, seed: int) -> np.ndarray:
    """The law with one per cent of noise, shape (n,)."""
    rng = np.random.default_rng(seed)
    return true_ms(configs) * np.exp(NOISE * rng.standard_normal(len(configs)))


def true_ms(configs: Sequence[SubnetConfig]) -> np.ndarray:
    """The law without noise, shape (n,)."""
    return np.array([law_ms(config) for config in configs])
