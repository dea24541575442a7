"""Parameters, MACs and bytes of a subnet's image encoder, by arithmetic alone.

One MAC is one multiplication with its addition (FLOPs = 2 × MACs). The counts follow the layer
equations of `segment_anything.modeling.image_encoder.ImageEncoderViT`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsearch.records import LayerConfig, SamGeometry, SubnetConfig


@dataclass(frozen=True)
class BlockCost:
    """MACs of one encoder block by kind, and its parameters.

    `tokens` counts the tokens that attention and its projections see: window padding included.
    """

    tokens: int
    mlp_macs: int
    projection_macs: int
    attention_macs: int
    rel_pos_macs: int
    params: int

    @property
    def macs(self) -> int:
        """All MACs of the block."""
        return self.mlp_macs + self.projection_macs + self.attention_macs + self.rel_pos_macs


def block_cost(geometry: SamGeometry, layer: LayerConfig, resolution: int) -> BlockCost:
    """Cost of one block at one image and an input of `resolution` pixels a side."""
    grid = resolution // geometry.patch_size
    if geometry.is_global(layer.index):
        side, windows = grid, 1
    else:
        side = geometry.window_size
        windows = (-(-grid // side)) ** 2
    dim, head_dim = geometry.embed_dim, geometry.head_dim
    inner = layer.heads * head_dim
    tokens = windows * side * side
    return BlockCost(
        tokens=tokens,
        mlp_macs=2 * grid * grid * dim * layer.mlp_width,
        projection_macs=4 * tokens * dim * inner,
        attention_macs=2 * tokens * side * side * inner,
        rel_pos_macs=2 * tokens * side * inner,
        params=(
            4 * dim  # two layer norms
            + 3 * inner * (dim + 1)  # qkv
            + dim * (inner + 1)  # proj
            + layer.mlp_width * (dim + 1)
            + dim * (layer.mlp_width + 1)
            + 2 * (2 * side - 1) * head_dim  # relative positions
        ),
    )


def encoder_macs(geometry: SamGeometry, config: SubnetConfig) -> int:
    """MACs of the whole image encoder for one image."""
    tokens = (config.resolution // geometry.patch_size) ** 2
    patch_embed = tokens * geometry.embed_dim * 3 * geometry.patch_size**2
    neck = tokens * geometry.prompt_dim * (geometry.embed_dim + 9 * geometry.prompt_dim)
    blocks = sum(block_cost(geometry, layer, config.resolution).macs for layer in config.layers)
    return patch_embed + neck + blocks


def encoder_params(geometry: SamGeometry, config: SubnetConfig) -> int:
    """Parameters of the whole image encoder, tables of positions at the subnet's resolution."""
    tokens = (config.resolution // geometry.patch_size) ** 2
    dim, out = geometry.embed_dim, geometry.prompt_dim
    patch_embed = dim * (3 * geometry.patch_size**2 + 1)
    neck = out * dim + 9 * out * out + 4 * out
    blocks = sum(block_cost(geometry, layer, config.resolution).params for layer in config.layers)
    return tokens * dim + patch_embed + neck + blocks
