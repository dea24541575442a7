"""What a subnet's tensors are, against references that were made by hand."""

import pytest
import torch
from segment_anything.modeling.image_encoder import get_rel_pos
from tiny import GEOMETRY, MIXED, SUBNETS, randomised_sam, subnet
from torch import Tensor

from hwsearch.records import SubnetConfig
from hwsearch.supernet.slicing import (
    encoder_skeleton,
    first_heads,
    resize_positions,
    resize_rel_pos,
    slice_encoder,
)

HEADS, HEAD_DIM = GEOMETRY.heads, GEOMETRY.head_dim


@pytest.fixture
def parameters():
    """The full encoder's parameters."""
    return dict(randomised_sam(0).image_encoder.named_parameters())


def test_first_heads_keeps_the_same_heads_of_q_k_and_v():
    packed = torch.arange(3 * HEADS * HEAD_DIM)
    rows = [
        part * HEADS * HEAD_DIM + head * HEAD_DIM + place
        for part in range(3)  # q, k, v
        for head in range(2)
        for place in range(HEAD_DIM)
    ]
    assert first_heads(packed, 2, HEAD_DIM).tolist() == rows
    assert first_heads(packed[:, None], 2, HEAD_DIM)[:, 0].tolist() == rows
    assert first_heads(packed, HEADS, HEAD_DIM) is packed


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_a_sliced_attention_is_the_full_one_without_the_other_heads(heads: int):
    """A head whose columns of `proj` are zero says nothing, which is what a missing head does."""
    sam = randomised_sam(3)
    attention = sam.image_encoder.blocks[1].attn
    config = subnet(heads=heads)
    sliced = encoder_skeleton(GEOMETRY, config).to_empty(device="cpu")
    sliced.load_state_dict(
        slice_encoder(dict(sam.image_encoder.named_parameters()), GEOMETRY, config)
    )
    tokens = torch.randn(2, 8, 8, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attention.proj.weight[:, heads * HEAD_DIM :] = 0
        torch.testing.assert_close(sliced.blocks[1].attn(tokens), attention(tokens))


def test_a_sliced_mlp_is_the_full_one_without_the_other_neurons():
    sam = randomised_sam(3)
    mlp = sam.image_encoder.blocks[2].mlp
    config = subnet(mlp_width=16)
    sliced = encoder_skeleton(GEOMETRY, config).to_empty(device="cpu")
    sliced.load_state_dict(
        slice_encoder(dict(sam.image_encoder.named_parameters()), GEOMETRY, config)
    )
    tokens = torch.randn(2, 8, 8, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mlp.lin2.weight[:, 16:] = 0
        torch.testing.assert_close(sliced.blocks[2].mlp(tokens), mlp(tokens))


def test_kept_layers_stand_in_order_with_their_own_kind(parameters: dict[str, Tensor]):
    sliced = slice_encoder(parameters, GEOMETRY, MIXED)
    skeleton = encoder_skeleton(GEOMETRY, MIXED)
    # Layers 0, 2 and 3 stay: two windowed ones and a global one.
    assert [block.window_size for block in skeleton.blocks] == [3, 3, 0]
    for place, index in enumerate((0, 2, 3)):
        ours = sliced[f"blocks.{place}.norm1.weight"]
        assert torch.equal(ours, parameters[f"blocks.{index}.norm1.weight"])
    assert not any(name.startswith("blocks.3") for name in sliced)


@pytest.mark.parametrize("config", SUBNETS.values(), ids=SUBNETS)
def test_slices_fit_their_skeleton(parameters: dict[str, Tensor], config: SubnetConfig):
    sliced = slice_encoder(parameters, GEOMETRY, config)
    skeleton = dict(encoder_skeleton(GEOMETRY, config).named_parameters())
    assert {n: t.shape for n, t in sliced.items()} == {n: t.shape for n, t in skeleton.items()}
    assert all(tensor.is_meta for tensor in skeleton.values())


@pytest.mark.parametrize("grid", [2, 4, 7, 11])
def test_relative_positions_are_resized_as_segment_anything_does(grid: int):
    table = torch.randn(2 * 8 - 1, HEAD_DIM, generator=torch.Generator().manual_seed(0))
    resized = resize_rel_pos(table, 2 * grid - 1)
    assert resized.shape == (2 * grid - 1, HEAD_DIM)
    assert torch.equal(get_rel_pos(grid, grid, resized), get_rel_pos(grid, grid, table))


def test_positions_of_the_same_grid_are_left_alone():
    table = torch.randn(15, HEAD_DIM)
    assert resize_rel_pos(table, 15) is table
    assert resize_rel_pos(table, None) is table
    positions = torch.randn(1, 8, 8, 32)
    assert resize_positions(positions, 8) is positions


def test_absolute_positions_keep_their_place_when_resized():
    # A ramp along the rows in one channel, along the columns in the other.
    ramp = torch.arange(8.0)
    field = torch.stack([ramp[:, None].expand(8, 8), ramp[None].expand(8, 8)], dim=-1)[None]
    resized = resize_positions(field, 4)[0]
    centres = torch.tensor([0.5, 2.5, 4.5, 6.5])
    inner = slice(1, 3)  # the bicubic kernel bends a ramp at its ends
    assert resized.shape == (4, 4, 2)
    torch.testing.assert_close(resized[inner, :, 0], centres[inner, None].expand(2, 4))
    torch.testing.assert_close(resized[:, inner, 1], centres[None, inner].expand(4, 2))


def test_only_the_slice_learns(parameters: dict[str, Tensor]):
    config = subnet(indices=(0, 2), mlp_width=16, heads=2)
    sliced = slice_encoder(parameters, GEOMETRY, config)
    sum(tensor.square().sum() for tensor in sliced.values()).backward()

    def reached(name: str) -> Tensor:
        grad = parameters[name].grad
        assert grad is not None
        return grad != 0

    kept = torch.zeros(3, HEADS, HEAD_DIM, dtype=torch.bool)
    kept[:, :2] = True
    assert torch.equal(reached("blocks.2.attn.qkv.bias"), kept.flatten())
    assert torch.equal(reached("blocks.2.attn.qkv.weight").all(dim=1), kept.flatten())
    assert reached("blocks.2.attn.proj.weight").all(dim=0).tolist() == [True] * 16 + [False] * 16
    assert reached("blocks.2.mlp.lin1.weight").all(dim=1).tolist() == [True] * 16 + [False] * 48
    assert reached("blocks.2.mlp.lin1.bias").tolist() == [True] * 16 + [False] * 48
    assert reached("blocks.2.mlp.lin2.weight").all(dim=0).tolist() == [True] * 16 + [False] * 48
    assert reached("blocks.0.mlp.lin1.weight").all()
    assert reached("neck.0.weight").all()
    for index in (1, 3):
        left_out = [t for name, t in parameters.items() if name.startswith(f"blocks.{index}.")]
        assert left_out
        assert all(tensor.grad is None for tensor in left_out)
