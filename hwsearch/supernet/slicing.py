"""A subnet's encoder as a slice of the full one.

This one map defines what a subnet is. Activating a subnet calls a plain segment_anything encoder
on the sliced tensors, extracting it copies them, so the two agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional as F

from hwsearch.records import LayerConfig, SamGeometry, SubnetConfig
from hwsearch.supernet.attention import FoldedAttention


def slice_encoder(
    parameters: Mapping[str, Tensor], geometry: SamGeometry, config: SubnetConfig
) -> dict[str, Tensor]:
    """The parameters of a subnet's image encoder, differentiable back to the full ones.

    MLPs keep their first neurons, attention its first heads: whole heads, as three row ranges of
    the packed `qkv` (3, heads, head_dim) and the matching columns of `proj`. Absolute positions
    and the relative positions of global layers are resized to the subnet's grid.

    Args:
        parameters: name → tensor of the full `ImageEncoderViT`.
        geometry: the full encoder's geometry.
        config: the subnet.
    """
    grid = config.resolution // geometry.patch_size
    sliced = {
        name: tensor
        for name, tensor in parameters.items()
        if not name.startswith(("blocks.", "pos_embed"))
    }
    sliced["pos_embed"] = resize_positions(parameters["pos_embed"], grid)
    for place, layer in enumerate(config.layers):
        for name, tensor in _slice_block(parameters, geometry, layer, grid):
            sliced[f"blocks.{place}.{name}"] = tensor
    return sliced


def _slice_block(
    parameters: Mapping[str, Tensor], geometry: SamGeometry, layer: LayerConfig, grid: int
) -> Iterator[tuple[str, Tensor]]:
    prefix = f"blocks.{layer.index}."
    heads, head_dim, width = layer.heads, geometry.head_dim, layer.mlp_width
    rel_pos_length = 2 * grid - 1 if geometry.is_global(layer.index) else None

    def full(name: str) -> Tensor:
        return parameters[prefix + name]

    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
        yield name, full(name)
    for name in ("attn.qkv.weight", "attn.qkv.bias"):
        yield name, first_heads(full(name), heads, head_dim)
    yield "attn.proj.weight", full("attn.proj.weight")[:, : heads * head_dim].contiguous()
    yield "attn.proj.bias", full("attn.proj.bias")
    for name in ("attn.rel_pos_h", "attn.rel_pos_w"):
        yield name, resize_rel_pos(full(name), rel_pos_length)
    yield "mlp.lin1.weight", full("mlp.lin1.weight")[:width]
    yield "mlp.lin1.bias", full("mlp.lin1.bias")[:width]
    # Contiguous, since a strided matrix may take another path through the BLAS than its copy.
    yield "mlp.lin2.weight", full("mlp.lin2.weight")[:, :width].contiguous()
    yield "mlp.lin2.bias", full("mlp.lin2.bias")


def first_heads(packed: Tensor, heads: int, head_dim: int) -> Tensor:
    """The rows of the first heads of a packed qkv weight (3·H·D × C) or bias (3·H·D)."""
    by_head: Tensor = packed.unflatten(0, (3, -1, head_dim))
    if by_head.shape[1] == heads:
        return packed
    return by_head[:, :heads].flatten(0, 2)


def resize_positions(pos_embed: Tensor, grid: int) -> Tensor:
    """Absolute positions (1×G×G×C) at another grid, by bicubic interpolation."""
    if pos_embed.shape[1] == grid:
        return pos_embed
    resized = F.interpolate(
        pos_embed.permute(0, 3, 1, 2), size=(grid, grid), mode="bicubic", align_corners=False
    )
    return resized.permute(0, 2, 3, 1)


def resize_rel_pos(rel_pos: Tensor, length: int | None) -> Tensor:
    """Relative positions (L×D) at another length, linearly, as segment_anything's get_rel_pos."""
    if length is None or len(rel_pos) == length:
        return rel_pos
    return F.interpolate(rel_pos.T[None], size=length, mode="linear")[0].T


def encoder_skeleton(geometry: SamGeometry, config: SubnetConfig) -> ImageEncoderViT:
    """A plain image encoder with a subnet's shapes on the meta device: it has no weights."""
    with torch.device("meta"):
        encoder = ImageEncoderViT(
            img_size=config.resolution,
            patch_size=geometry.patch_size,
            embed_dim=geometry.embed_dim,
            depth=0,
            out_chans=geometry.prompt_dim,
            use_rel_pos=True,
        )
        encoder.blocks.extend(_block(geometry, layer, config) for layer in config.layers)
    return encoder.eval()


def _block(geometry: SamGeometry, layer: LayerConfig, config: SubnetConfig) -> Block:
    grid = config.resolution // geometry.patch_size
    window = 0 if geometry.is_global(layer.index) else geometry.window_size
    dim, inner = geometry.embed_dim, layer.heads * geometry.head_dim
    block = Block(
        dim=dim,
        num_heads=geometry.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        window_size=window,
    )
    block.attn = FoldedAttention(
        dim, geometry.heads, use_rel_pos=True, input_size=(window or grid, window or grid)
    )
    block.attn.num_heads = layer.heads  # the scale keeps head_dim, which pruning leaves alone
    block.attn.qkv = nn.Linear(dim, 3 * inner)
    block.attn.proj = nn.Linear(inner, dim)
    block.mlp = MLPBlock(embedding_dim=dim, mlp_dim=layer.mlp_width)
    return block
