"""Segment Anything models as modules: built from a geometry, and decoded in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from hwsearch.records import SamGeometry

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def encoder_arguments(geometry: SamGeometry) -> dict[str, Any]:
    """The arguments that make `ImageEncoderViT` the full image encoder of a geometry."""
    return {
        "img_size": geometry.image_size,
        "patch_size": geometry.patch_size,
        "embed_dim": geometry.embed_dim,
        "depth": geometry.depth,
        "num_heads": geometry.heads,
        # the half keeps int(dim × ratio) from losing a neuron to rounding
        "mlp_ratio": (geometry.mlp_width + 0.5) / geometry.embed_dim,
        "out_chans": geometry.prompt_dim,
        "qkv_bias": True,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "use_rel_pos": True,
        "window_size": geometry.window_size,
        "global_attn_indexes": geometry.global_layers,
    }


def build_sam(geometry: SamGeometry) -> Sam:
    """A plain Segment Anything model of a geometry, with fresh weights, in evaluation mode."""
    grid = geometry.image_size // geometry.patch_size
    sam = Sam(
        image_encoder=ImageEncoderViT(**encoder_arguments(geometry)),
        prompt_encoder=PromptEncoder(
            embed_dim=geometry.prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(geometry.image_size, geometry.image_size),
            mask_in_chans=geometry.mask_in_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=geometry.multimask_outputs,
            transformer=TwoWayTransformer(
                depth=geometry.decoder_depth,
                embedding_dim=geometry.prompt_dim,
                mlp_dim=geometry.decoder_mlp_width,
                num_heads=geometry.decoder_heads,
            ),
            transformer_dim=geometry.prompt_dim,
            iou_head_depth=geometry.iou_head_depth,
            iou_head_hidden_dim=geometry.iou_head_width,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval()


def set_resolution(sam: Sam, resolution: int, patch_size: int) -> None:
    """Tell the prompt encoder which input frame and embedding grid it serves."""
    grid = resolution // patch_size
    sam.prompt_encoder.input_image_size = (resolution, resolution)
    sam.prompt_encoder.image_embedding_size = (grid, grid)
    sam.prompt_encoder.mask_input_size = (4 * grid, 4 * grid)


def decode(sam: Sam, embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Decode every prompt of every image of a batch in one pass.

    Does for a batch what `MaskDecoder.predict_masks` does for one image, and returns all mask
    tokens: index 0 is the single-mask output, 1 … the multi-mask outputs.

    Args:
        sam: the model; its prompt encoder has to know the resolution (`set_resolution`).
        embeddings: B×C×G×G image embeddings.
        points: B×P×N×2 point prompts, (x, y) in pixels of the input frame; a box is
            its two corners.
        labels: B×P×N labels: 1 object, 0 background, 2 and 3 box corners, -1 none.

    Returns:
        B×P×T×4G×4G mask logits and B×P×T predicted IoUs, T = mask tokens.
    """
    images, prompts = points.shape[:2]
    decoder, grid = sam.mask_decoder, embeddings.shape[-2:]
    sparse = embed_points(sam.prompt_encoder, points.flatten(0, 1), labels.flatten(0, 1))
    dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
    source = (embeddings + dense).repeat_interleave(prompts, dim=0)
    positions = sam.prompt_encoder.get_dense_pe().expand(len(source), -1, -1, -1)

    hidden, source = decoder.transformer(source, positions, tokens)
    mask_tokens = hidden[:, 1 : 1 + decoder.num_mask_tokens]
    source = source.transpose(1, 2).unflatten(2, grid)
    upscaled = decoder.output_upscaling(source)
    kernels = torch.stack(
        [mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    masks = (kernels @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
    ious = decoder.iou_prediction_head(hidden[:, 0])
    return masks.unflatten(0, (images, prompts)), ious.unflatten(0, (images, prompts))


def embed_points(encoder: PromptEncoder, points: Tensor, labels: Tensor) -> Tensor:
    """Sparse prompt embeddings (P×N×C) of points (P×N×2) and labels (P×N).

    Equals `PromptEncoder` on boxes, and on points with their padding point labelled -1.
    """
    encoded = encoder.pe_layer.forward_with_coords(points + 0.5, encoder.input_image_size)
    label = labels.unsqueeze(-1)
    embedded = torch.where(label == -1, encoder.not_a_point_embed.weight, encoded)
    for value, embedding in enumerate(encoder.point_embeddings):
        embedded = embedded + (label == value) * embedding.weight
    return embedded


def normalise(sam: Sam, images: Tensor) -> Tensor:
    """Pixels 0 … 255 (B×3×H×W) to the input that the image encoder was trained on."""
    normalised: Tensor = (images - sam.pixel_mean) / sam.pixel_std
    return normalised


@contextmanager
def autocast(device: torch.device, *, enabled: bool) -> Iterator[None]:
    """bfloat16 autocast where `enabled`: several times the speed of fp32 on recent CPUs."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
        yield
