"""The supernet: an active subnet, an extracted one and the source model agree to the last bit."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from tiny import (
    GEOMETRY,
    MIXED,
    SUBNETS,
    random_images,
    randomised_sam,
    subnet,
    tiny_space,
    tiny_supernet,
)
from torch import Tensor

from hwsearch.costs import encoder_params
from hwsearch.errors import UsageError
from hwsearch.records import LayerImportance, SubnetConfig
from hwsearch.sam import decode
from hwsearch.space import LayerChoices, SearchSpace, default_space
from hwsearch.supernet.supernet import Supernet

# A box and a click in the frame of the smallest resolution.
POINTS = torch.tensor([[[[5.0, 8.0], [40.0, 50.0]], [[30.0, 20.0], [0.0, 0.0]]]]).expand(2, 2, 2, 2)
LABELS = torch.tensor([[[2, 3], [1, -1]]]).expand(2, 2, 2)

every_subnet = pytest.mark.parametrize("config", SUBNETS.values(), ids=SUBNETS)


def outputs(sam: Sam, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, mask logits and predicted IoUs of two images."""
    with torch.no_grad():
        embeddings = sam.image_encoder(random_images(resolution))
        return embeddings, *decode(sam, embeddings, POINTS, LABELS)


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@every_subnet
def test_active_equals_extracted_to_the_last_bit(supernet: Supernet, config: SubnetConfig):
    extracted = outputs(supernet.extract(config), config.resolution)
    with supernet.active(config) as sam:
        active = outputs(sam, config.resolution)
    assert all(tensor.isfinite().all() for tensor in active)
    assert same(active, extracted)


@every_subnet
def test_each_subnet_is_a_function_of_its_own(supernet: Supernet, config: SubnetConfig):
    """Equal outputs would make the parity above worthless."""
    if config == supernet.space.largest:
        return
    images = random_images(config.resolution)
    full = subnet(resolution=config.resolution)
    if config == full:  # only the resolution differs: the grid of the output tells
        assert outputs(supernet.extract(config), config.resolution)[0].shape[-1] < 8
        return
    with torch.no_grad():
        narrow = supernet.extract(config).image_encoder(images)
        wide = supernet.extract(full).image_encoder(images)
    assert (narrow - wide).abs().mean() > 0.01 * wide.abs().mean()


def test_gradients_do_not_change_what_a_subnet_computes(supernet: Supernet):
    images = random_images(MIXED.resolution)
    with supernet.active(MIXED) as sam:
        learning = sam.image_encoder(images)
    assert learning.requires_grad
    with torch.no_grad():
        assert torch.equal(learning, supernet.extract(MIXED).image_encoder(images))


def test_the_largest_subnet_is_the_source():
    """Up to rounding: a subnet's attention sums the relative positions in another order."""
    source = randomised_sam(7)
    supernet = Supernet(source, GEOMETRY, tiny_space())
    expected = outputs(source, 128)
    assert same(outputs(supernet.sam, 128), expected)
    extracted = outputs(supernet.extract(supernet.space.largest), 128)
    torch.testing.assert_close(extracted, expected)
    with supernet.active(supernet.space.largest) as sam:
        assert same(outputs(sam, 128), extracted)


def test_the_largest_subnet_has_the_sources_tensors():
    source = randomised_sam(7)
    supernet = Supernet(source, GEOMETRY, tiny_space())
    state, extracted = source.state_dict(), supernet.extract(supernet.space.largest).state_dict()
    assert state.keys() == extracted.keys()
    assert all(torch.equal(state[name], extracted[name]) for name in state)


def test_a_supernet_does_not_share_memory_with_its_source():
    source = randomised_sam(7)
    supernet = Supernet(source, GEOMETRY, tiny_space())
    before = supernet.weights_digest()
    for parameter in source.parameters():
        parameter.data.zero_()
    assert supernet.weights_digest() == before


@pytest.mark.parametrize("resolution", [64, 112])
def test_another_resolution_is_the_same_network_on_another_grid(resolution: int):
    """With all positions alike, resized tables are too: a plain encoder of that size agrees."""
    sam = randomised_sam(2)
    encoder = sam.image_encoder
    encoder.pos_embed.data[:] = encoder.pos_embed.data[:, :1, :1]
    for index in GEOMETRY.global_layers:
        attention = encoder.blocks[index].attn
        attention.rel_pos_h.data[:] = attention.rel_pos_h.data[:1]
        attention.rel_pos_w.data[:] = attention.rel_pos_w.data[:1]
    extracted = Supernet(sam, GEOMETRY, tiny_space()).extract(subnet(resolution=resolution))
    grid = resolution // 16
    encoder.pos_embed.data = encoder.pos_embed.data[:, :grid, :grid]
    images = random_images(resolution)
    with torch.no_grad():
        torch.testing.assert_close(extracted.image_encoder(images), encoder(images))


@every_subnet
def test_an_extracted_subnet_holds_its_own_weights_and_nothing_more(
    supernet: Supernet, config: SubnetConfig
):
    extracted = supernet.extract(config)
    assert type(extracted) is Sam
    parameters = list(extracted.image_encoder.parameters())
    assert sum(p.numel() for p in parameters) == encoder_params(GEOMETRY, config)
    for tensor in extracted.state_dict().values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    before = supernet.weights_digest()
    for tensor in extracted.state_dict().values():
        tensor.zero_()
    assert supernet.weights_digest() == before


@pytest.mark.parametrize("config", [subnet(), MIXED], ids=["largest", "mixed"])
def test_sam_predictor_works_on_an_extracted_subnet(supernet: Supernet, config: SubnetConfig):
    image = np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)
    box = np.array([20.0, 10.0, 100.0, 70.0])

    def predicted(sam: Sam) -> tuple[np.ndarray, ...]:
        predictor = SamPredictor(sam)
        predictor.set_image(image)
        return predictor.predict(box=box, multimask_output=True, return_logits=True)

    masks, ious, low_res = predicted(supernet.extract(config))
    grid = config.resolution // 16
    assert masks.shape == (3, 90, 150)
    assert low_res.shape == (3, 4 * grid, 4 * grid)
    assert np.isfinite(masks).all()
    with supernet.active(config) as sam:
        active = predicted(sam)
    for ours, theirs in zip((masks, ious, low_res), active, strict=True):
        assert np.array_equal(ours, theirs)


def state_of(sam: Sam) -> tuple[object, ...]:
    prompts = sam.prompt_encoder
    return (
        sam.image_encoder.img_size,
        prompts.input_image_size,
        prompts.image_embedding_size,
        prompts.mask_input_size,
    )


def test_contexts_nest(supernet: Supernet):
    small = supernet.space.smallest
    alone = {
        config.id: outputs(supernet.extract(config), config.resolution) for config in (MIXED, small)
    }
    untouched, full = state_of(supernet.sam), outputs(supernet.sam, 128)
    with supernet.active(MIXED) as sam:
        assert state_of(sam) == (112, (112, 112), (7, 7), (28, 28))
        with supernet.active(small):
            assert same(outputs(sam, 64), alone[small.id])
        assert state_of(sam) == (112, (112, 112), (7, 7), (28, 28))
        assert same(outputs(sam, 112), alone[MIXED.id])
    assert state_of(supernet.sam) == untouched == (128, (128, 128), (8, 8), (32, 32))
    assert same(outputs(supernet.sam, 128), full)


def test_a_context_is_left_after_a_failure(supernet: Supernet):
    untouched, full = state_of(supernet.sam), outputs(supernet.sam, 128)

    def fail_inside() -> None:
        with supernet.active(MIXED):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail_inside()
    assert state_of(supernet.sam) == untouched
    assert same(outputs(supernet.sam, 128), full)


def test_using_a_subnet_leaves_the_weights_alone(supernet: Supernet):
    before = supernet.weights_digest()
    for config in SUBNETS.values():
        with supernet.active(config) as sam:
            outputs(sam, config.resolution)
        supernet.extract(config)
    assert supernet.weights_digest() == before


def test_the_weights_digest_belongs_to_the_weights():
    assert tiny_supernet(1).weights_digest() == tiny_supernet(1).weights_digest()
    assert tiny_supernet(1).weights_digest() != tiny_supernet(2).weights_digest()
    changed = tiny_supernet(1)
    changed.sam.mask_decoder.iou_token.weight.data[0, 0] += 1e-3
    assert changed.weights_digest() != tiny_supernet(1).weights_digest()


@pytest.mark.parametrize("config", [subnet(resolution=96), subnet(heads=3), subnet(indices=(0,))])
def test_a_subnet_outside_the_space_is_refused(supernet: Supernet, config: SubnetConfig):
    with pytest.raises(UsageError, match="not in the search space"):
        supernet.extract(config)
    with pytest.raises(UsageError, match="not in the search space"), supernet.active(config):
        pass
    assert state_of(supernet.sam) == (128, (128, 128), (8, 8), (32, 32))


def test_extract_any_goes_beyond_the_space(supernet: Supernet):
    config = subnet(indices=(1,), mlp_width=24, heads=3)
    assert not supernet.space.contains(config)
    sam = supernet.extract_any(config)
    assert sum(p.numel() for p in sam.image_encoder.parameters()) == encoder_params(
        GEOMETRY, config
    )
    assert all(tensor.isfinite().all() for tensor in outputs(sam, 128))


def stretched(**changes: object) -> SearchSpace:
    space = tiny_space()
    layer = LayerChoices.model_validate(space.layers[1].model_dump() | changes)
    layers = (space.layers[0], layer, *space.layers[2:])
    return space.model_copy(update={"layers": layers})


@pytest.mark.parametrize(
    ("space", "fault"),
    [
        (default_space(GEOMETRY.model_copy(update={"depth": 3, "global_layers": ()})), "3 layers"),
        (default_space(GEOMETRY.model_copy(update={"image_size": 256})), "256 px"),
        (tiny_space().model_copy(update={"resolutions": (100, 128)}), "100 is no multiple"),
        (stretched(mlp_widths=(16, 72)), "72 MLP neurons"),
        (stretched(heads=(1, 5)), "5 heads"),
    ],
)
def test_a_space_that_does_not_fit_the_model_is_refused(space: SearchSpace, fault: str):
    with pytest.raises(UsageError, match=fault):
        Supernet(randomised_sam(0), GEOMETRY, space)


def test_removal_probabilities_come_from_the_importance():
    importance = tuple(
        LayerImportance(index=i, is_global=False, miou_drop=0.0, removal_probability=i / 10)
        for i in (1, 2)
    )
    supernet = Supernet(randomised_sam(0), GEOMETRY, tiny_space(), importance)
    assert supernet.removal_probabilities() == {1: 0.1, 2: 0.2}
    assert tiny_supernet().removal_probabilities() == {}


def test_the_id_belongs_to_the_geometry_alone():
    assert tiny_supernet(1).id == tiny_supernet(2).id == GEOMETRY.id
