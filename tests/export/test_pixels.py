"""NumPy's way from image to input and from logits to mask is that of segment_anything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from tiny import randomised_sam

from hwsearch.errors import UsageError
from hwsearch.export.parity import preprocessing_of
from hwsearch.export.pixels import check_image, fit_long_side, preprocess, upscale_masks

SIDES = st.integers(8, 200)


@pytest.fixture(scope="module")
def model():
    return randomised_sam(0)


@settings(max_examples=40)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 9))
def test_preprocessing_equals_sams_to_the_last_bit(model: Sam, height: int, width: int, seed: int):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = ResizeLongestSide(128).apply_image(image)
    want = model.preprocess(torch.as_tensor(resized).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(preprocess(image, preprocessing_of(model)), want.numpy())


@settings(max_examples=40)
@given(height=SIDES, width=SIDES, resolution=st.sampled_from([64, 112, 128]))
def test_postprocessing_equals_sams(model: Sam, height: int, width: int, resolution: int):
    rng = torch.Generator().manual_seed(height * width)
    low_res = 10 * torch.randn(2, 3, resolution // 4, resolution // 4, generator=rng)
    model.image_encoder.img_size = resolution
    inner = ResizeLongestSide.get_preprocess_shape(height, width, resolution)
    want = model.postprocess_masks(low_res, inner, (height, width))
    got = upscale_masks(low_res.numpy(), resolution=resolution, size=(height, width))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-4)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_the_frame_is_filled_along_the_long_side(height: int, width: int):
    fitted = fit_long_side((height, width), 1024)
    assert max(fitted) == 1024
    assert min(fitted) >= 1
    wanted = ResizeLongestSide.get_preprocess_shape(height, width, 1024)
    assert fitted == tuple(max(1, side) for side in wanted)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "alpha", "channels first", "float", "empty"],
)
def test_what_is_no_image_is_refused(image: np.ndarray):
    with pytest.raises(UsageError, match="give H×W×3 uint8 pixels"):
        check_image(image)
