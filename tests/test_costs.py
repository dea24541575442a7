"""Parameters and MACs by arithmetic equal what torch counts on the module itself."""

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import Attention
from tiny import GEOMETRY, SUBNETS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hwsearch.checkpoint import infer_geometry
from hwsearch.costs import block_cost, encoder_macs, encoder_params
from hwsearch.records import LayerConfig, SamGeometry, SubnetConfig
from hwsearch.space import default_space
from hwsearch.supernet.slicing import encoder_skeleton


def counted_macs(encoder: nn.Module, resolution: int) -> int:
    """MACs of all matrix products and convolutions, counted by torch on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.empty(1, 3, resolution, resolution, device="meta"))
    return counter.get_total_flops() // 2


def counted_params(encoder: nn.Module) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize("name", SUBNETS)
def test_costs_are_what_torch_counts(name: str):
    config = SUBNETS[name]
    encoder = encoder_skeleton(GEOMETRY, config)
    for block in encoder.blocks:
        # Costs are those of segment_anything's own attention, as it is exported; the folded one
        # trades additions for further products of the same outcome.
        block.attn.__class__ = Attention
    assert encoder_params(GEOMETRY, config) == counted_params(encoder)
    assert encoder_macs(GEOMETRY, config) == counted_macs(encoder, config.resolution)


# Parameters and GMACs of the image encoders at 1024 pixels.
OFFICIAL = {
    "vit_b": (89_670_912, 486.0),
    "vit_l": (308_278_272, 1492.8),
    "vit_h": (637_026_048, 2980.5),
}


@pytest.mark.parametrize("model", OFFICIAL)
def test_costs_of_the_official_models(model: str):
    with torch.device("meta"):
        sam = sam_model_registry[model]()
    geometry = infer_geometry(sam.state_dict())
    largest = default_space(geometry).largest
    params, gmacs = OFFICIAL[model]
    assert encoder_params(geometry, largest) == counted_params(sam.image_encoder) == params
    assert round(encoder_macs(geometry, largest) / 1e9, 1) == gmacs
    assert encoder_macs(geometry, largest) == counted_macs(sam.image_encoder, 1024)


VIT_B = SamGeometry(
    model="vit_b",
    image_size=1024,
    patch_size=16,
    embed_dim=768,
    depth=12,
    heads=12,
    mlp_width=3072,
    window_size=14,
    global_layers=(2, 5, 8, 11),
    prompt_dim=256,
)


def test_window_padding_counts_as_work():
    layer = LayerConfig(index=0, mlp_width=3072, heads=12)
    # 64 patches a side make 5 windows of 14, so that 70² tokens are attended to.
    assert block_cost(VIT_B, layer, 1024).tokens == 70**2
    # 56 patches make 4 windows without padding.
    assert block_cost(VIT_B, layer, 896).tokens == 56**2


def test_parameters_hide_what_macs_see():
    """Leaving out two global or two windowed layers of ViT-B costs the same parameters but for
    their tables of positions, yet 23 % against 13 % of the MACs."""
    full = default_space(VIT_B).largest

    def without(*indices: int) -> SubnetConfig:
        rest = tuple(layer for layer in full.layers if layer.index not in indices)
        return full.model_copy(update={"layers": rest})

    saved = [
        1 - encoder_macs(VIT_B, c) / encoder_macs(VIT_B, full)
        for c in (without(2, 5), without(1, 6))
    ]
    sizes = [encoder_params(VIT_B, c) for c in (without(2, 5), without(1, 6))]
    assert saved == pytest.approx([0.227, 0.134], abs=0.002)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.001)
