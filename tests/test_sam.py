"""The batched decoder gives what segment_anything gives, one prompt at a time."""

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from tiny import GEOMETRY, random_images, randomised_sam

from hwsearch.sam import build_sam, decode, embed_points, normalise, set_resolution

POINTS = torch.tensor([[10.0, 20.0], [90.0, 70.0]])


@pytest.fixture(scope="module")
def sam():
    return randomised_sam(4)


@pytest.mark.parametrize("prompt", ["box", "point"])
def test_decode_equals_segment_anything(sam: Sam, prompt: str):
    with torch.no_grad():
        embedding = sam.image_encoder(random_images(128, count=1))
        if prompt == "box":
            sparse, dense = sam.prompt_encoder(None, POINTS.view(1, 4), None)
            labels = torch.tensor([[[2, 3]]])
        else:
            points = (POINTS[None, :1], torch.ones(1, 1, dtype=torch.int))
            sparse, dense = sam.prompt_encoder(points, None, None)
            labels = torch.tensor([[[1, -1]]])
        positions = sam.prompt_encoder.get_dense_pe()
        expected = sam.mask_decoder.predict_masks(embedding, positions, sparse, dense)
        ours = decode(sam, embedding, POINTS.view(1, 1, 2, 2), labels)
    torch.testing.assert_close(ours[0][0], expected[0])
    torch.testing.assert_close(ours[1][0], expected[1])


@pytest.mark.parametrize("label", [-1, 0, 1])
def test_every_kind_of_point_is_embedded_as_segment_anything_does(sam: Sam, label: int):
    labels = torch.tensor([[label]])
    with torch.no_grad():
        expected, _ = sam.prompt_encoder((POINTS[None, :1], labels), None, None)
        ours = embed_points(
            sam.prompt_encoder,
            POINTS[None] * torch.tensor([[1.0], [0.0]]),
            torch.tensor([[label, -1]]),
        )
    torch.testing.assert_close(ours, expected)


def test_prompts_of_a_batch_do_not_touch_each_other(sam: Sam):
    rng = torch.Generator().manual_seed(0)
    points = 128 * torch.rand(2, 3, 2, 2, generator=rng)
    labels = torch.tensor([2, 3]).expand(2, 3, 2)
    with torch.no_grad():
        embeddings = sam.image_encoder(random_images(128))
        together = decode(sam, embeddings, points, labels)
        for image in range(2):
            for prompt in range(3):
                alone = decode(
                    sam,
                    embeddings[image : image + 1],
                    points[image : image + 1, prompt : prompt + 1],
                    labels[:1, :1],
                )
                for ours, theirs in zip(together, alone, strict=True):
                    torch.testing.assert_close(ours[image, prompt], theirs[0, 0])


def test_shapes(sam: Sam):
    with torch.no_grad():
        logits, ious = decode(
            sam,
            sam.image_encoder(random_images(128)),
            torch.zeros(2, 5, 2, 2),
            torch.ones(2, 5, 2, dtype=torch.long),
        )
    assert logits.shape == (2, 5, 4, 32, 32)
    assert ious.shape == (2, 5, 4)


def test_normalise_is_segment_anythings(sam: Sam):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 128, 128), np.uint8)
    ours = normalise(sam, torch.from_numpy(pixels)[None])
    torch.testing.assert_close(ours, sam.preprocess(torch.from_numpy(pixels)[None]))


def test_set_resolution_is_what_a_sam_of_that_size_has():
    sam = build_sam(GEOMETRY)
    set_resolution(sam, 64, 16)
    smaller = build_sam(GEOMETRY.model_copy(update={"image_size": 64}))
    for name in ("input_image_size", "image_embedding_size", "mask_input_size"):
        assert getattr(sam.prompt_encoder, name) == getattr(smaller.prompt_encoder, name)


@pytest.mark.parametrize(("width", "dim"), [(40, 32), (768, 192), (488, 56), (120, 88)])
def test_any_mlp_width_can_be_built(width: int, dim: int):
    geometry = GEOMETRY.model_copy(update={"mlp_width": width, "embed_dim": dim})
    built = build_sam(geometry).image_encoder.blocks[0].mlp.lin1.out_features
    assert built == width
