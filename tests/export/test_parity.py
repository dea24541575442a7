"""The gate lets the model's own export through and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from hwsearch.errors import ExportError, UsageError
from hwsearch.export.parity import ParityLimits, check_parity, drawn_images
from hwsearch.runtime.onnx_export import export_decoder, export_encoder


@pytest.fixture
def files(sam: Sam, tmp_path: Path):
    """Files of the unchanged model."""
    return (
        export_encoder(sam, tmp_path / "encoder.onnx"),
        export_decoder(sam, tmp_path / "decoder.onnx"),
    )


def test_a_true_export_passes(sam: Sam, files: tuple[Path, Path], images: list[np.ndarray]):
    parity = check_parity(sam, *files, images=images)
    assert parity.embedding_cosine_min > 1 - 1e-6
    assert parity.embedding_max_abs_error < 1e-3
    assert parity.mask_iou_mean > 0.999
    assert parity.mask_iou_min <= parity.mask_iou_mean
    assert parity.iou_prediction_max_error < 1e-3
    assert parity.images == 2
    assert parity.prompts == 2 * 3 * 4  # boxes, points and both, four of each


def test_a_changed_encoder_is_caught(sam: Sam, files: tuple[Path, Path]):
    with torch.no_grad():
        sam.image_encoder.blocks[1].attn.rel_pos_h.neg_()
    with pytest.raises(ExportError, match="embeddings' cosine falls to 0"):
        check_parity(sam, *files)


def test_mixed_up_masks_are_caught(sam: Sam, files: tuple[Path, Path]):
    networks = sam.mask_decoder.output_hypernetworks_mlps
    networks[0], networks[1] = networks[1], networks[0]
    with pytest.raises(ExportError, match="the masks overlap by 0") as caught:
        check_parity(sam, *files)
    assert "cosine" not in str(caught.value)


def test_a_changed_iou_head_is_caught(sam: Sam, files: tuple[Path, Path]):
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias += 0.01
    with pytest.raises(ExportError, match=r"predicted IoUs differ by up to 0\.01") as caught:
        check_parity(sam, *files)
    assert "overlap" not in str(caught.value)


@pytest.mark.parametrize("embedding", [0, 1, 2, 3, "padding"])
def test_every_kind_of_prompt_counts(sam: Sam, files: tuple[Path, Path], embedding: int | str):
    """Background points (0) are asked of nobody here; all others have to matter."""
    encoder = sam.prompt_encoder
    changed = (
        encoder.not_a_point_embed
        if embedding == "padding"
        else encoder.point_embeddings[int(embedding)]
    )
    with torch.no_grad():
        changed.weight.neg_()
    if embedding == 0:
        check_parity(sam, *files)
    else:
        with pytest.raises(ExportError):
            check_parity(sam, *files)


def test_numbers_that_are_none_fail(sam: Sam, files: tuple[Path, Path]):
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(torch.nan)
    with pytest.raises(ExportError, match="model's weights give infinite or undefined numbers"):
        check_parity(sam, *files)


def test_an_export_that_overflows_fails(sam: Sam, files: tuple[Path, Path], tmp_path: Path):
    encoder, _ = files
    bias = sam.mask_decoder.iou_prediction_head.layers[-1].bias
    before = bias.clone()
    with torch.no_grad():
        bias.fill_(torch.inf)
        overflowing = export_decoder(sam, tmp_path / "overflowing.onnx")
        bias.copy_(before)
    with pytest.raises(ExportError, match="exported files give infinite"):
        check_parity(sam, encoder, overflowing)


def test_limits_can_be_looser(sam: Sam, files: tuple[Path, Path]):
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias += 0.01
    parity = check_parity(sam, *files, limits=ParityLimits(iou_prediction_max_error=0.02))
    assert parity.iou_prediction_max_error == pytest.approx(0.01, rel=0.01)


def test_what_is_no_image_is_refused(sam: Sam, files: tuple[Path, Path]):
    with pytest.raises(UsageError, match="H×W×3"):
        check_parity(sam, *files, images=[np.zeros((3, 8, 8), np.uint8)])


def test_drawn_images_are_wide_and_tall_and_always_the_same():
    wide, tall = drawn_images()
    assert wide.shape[1] > wide.shape[0]
    assert tall.shape[0] > tall.shape[1]
    assert wide.std() > 20
    np.testing.assert_array_equal(drawn_images()[1], tall)
