"""A loaded bundle predicts what SamPredictor predicts with the model it came from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Exported
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamPredictor

from hwsearch.errors import DeviceError, ExportError, UsageError
from hwsearch.export import load
from hwsearch.export.load import Bundle, load_bundle
from hwsearch.export.manifest import BundleManifest, FileDigest, digest_file
from hwsearch.export.parity import drawn_images

PROMPTS = {
    "box": {"box": [40, 30, 150, 180]},
    "point": {"point_coords": [[100, 90]], "point_labels": [1]},
    "points": {"point_coords": [[100, 90], [20, 30.5]], "point_labels": [1, 0]},
    "point and box": {
        "point_coords": [[100, 90]],
        "point_labels": [1],
        "box": [40, 30, 150, 180],
    },
}


def as_arrays(prompt: dict[str, list[float]]):
    return {name: np.array(value) for name, value in prompt.items()}


@pytest.fixture(scope="module")
def bundle(exported: Exported):
    with load_bundle(exported.path, threads=1) as bundle:
        yield bundle


@pytest.fixture(scope="module")
def predictors(bundle: Bundle, exported: Exported):
    return bundle, SamPredictor(exported.sam)


@pytest.fixture
def copied(exported: Exported, tmp_path: Path):
    """A bundle to be damaged."""
    return Path(shutil.copytree(exported.path, tmp_path / "copy"))


def assert_same_prediction(got: tuple[np.ndarray, ...], want: tuple[np.ndarray, ...]):
    for mine, theirs in zip(got, want, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
    np.testing.assert_allclose(got[1], want[1], atol=1e-4)
    scale = max(1, np.abs(want[2]).max())
    np.testing.assert_allclose(got[2], want[2], rtol=0, atol=1e-4 * scale)
    if want[0].dtype == bool:
        assert 0 < want[0].mean() < 1  # else any prediction would do
        assert (got[0] != want[0]).mean() < 1e-3
    else:
        np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "options",
    [
        {"multimask_output": multimask, "return_logits": logits}
        for multimask in (True, False)
        for logits in (False, True)
    ],
    ids=["three masks", "three logits", "one mask", "one logits"],
)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("which", [0, 1], ids=["wide", "tall"])
def test_predictions_equal_sam_predictors(
    predictors: tuple[Bundle, SamPredictor],
    which: int,
    prompt: dict[str, list[float]],
    options: dict[str, bool],
):
    bundle, original = predictors
    image = drawn_images(seed=3)[which]
    bundle.set_image(image)
    original.set_image(image)
    got = bundle.predict(**as_arrays(prompt), **options)
    assert_same_prediction(got, original.predict(**as_arrays(prompt), **options))
    assert got[0].shape == (3 if options["multimask_output"] else 1, *image.shape[:2])
    assert got[2].shape[-1] == 4 * 112 // 16


def test_the_embedding_equals_sam_predictors(
    predictors: tuple[Bundle, SamPredictor], images: list[np.ndarray]
):
    bundle, original = predictors
    bundle.set_image(images[0])
    original.set_image(images[0])
    want = original.get_image_embedding().numpy()
    np.testing.assert_allclose(bundle.get_image_embedding(), want, rtol=0, atol=1e-4)


def test_bgr_images(bundle: Bundle, images: list[np.ndarray]):
    bundle.set_image(images[0])
    rgb = bundle.get_image_embedding()
    bundle.set_image(images[0][..., ::-1], image_format="BGR")
    np.testing.assert_array_equal(bundle.get_image_embedding(), rgb)
    bundle.set_image(images[0], image_format="BGR")
    assert np.abs(bundle.get_image_embedding() - rgb).max() > 1e-2


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_many_boxes_are_predicted_as_one_by_one(
    bundle: Bundle, images: list[np.ndarray], count: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(load, "BOXES_AT_ONCE", 4)
    bundle.set_image(images[0])
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 240, (count, 2, 2)), axis=1).reshape(-1, 4)
    masks, ious, low_res = bundle.predict_boxes(boxes, multimask_output=False)
    assert masks.shape == (count, 1, *images[0].shape[:2])
    assert masks.dtype == bool
    assert ious.shape == (count, 1)
    assert low_res.shape == (count, 1, 28, 28)
    for index in range(count):
        alone = bundle.predict(box=boxes[index], multimask_output=False)
        np.testing.assert_allclose(ious[index], alone[1], atol=1e-5)
        assert (masks[index] != alone[0]).mean() < 1e-3


@settings(max_examples=15)
@given(height=st.integers(20, 300), width=st.integers(20, 300))
def test_masks_have_the_size_of_the_image(bundle: Bundle, height: int, width: int):
    bundle.set_image(np.full((height, width, 3), 90, np.uint8))
    masks, ious, _ = bundle.predict(box=[0, 0, width, height])
    assert masks.shape == (3, height, width)
    assert np.isfinite(ious).all()


def test_without_an_image_there_is_no_prediction(bundle: Bundle, images: list[np.ndarray]):
    bundle.set_image(images[0])
    assert bundle.is_image_set
    bundle.reset_image()
    assert not bundle.is_image_set
    for call in (
        lambda: bundle.predict(box=[0, 0, 5, 5]),
        lambda: bundle.predict_boxes([[0, 0, 5, 5]]),
        bundle.get_image_embedding,
    ):
        with pytest.raises(UsageError, match="call set_image first"):
            call()


def test_a_refused_image_leaves_the_one_before(bundle: Bundle, images: list[np.ndarray]):
    bundle.set_image(images[0])
    with pytest.raises(UsageError, match="take RGB or BGR"):
        bundle.set_image(images[0], image_format="HSV")
    with pytest.raises(UsageError, match="uint8"):
        bundle.set_image(images[0] / 255)
    assert bundle.predict(box=[0, 0, 50, 50])[0].shape == (3, *images[0].shape[:2])


def test_a_closed_bundle_says_so(exported: Exported, images: list[np.ndarray]):
    with load_bundle(exported.path, threads=1) as bundle:
        pass
    with pytest.raises(UsageError, match="closed"):
        bundle.set_image(images[0])


@pytest.mark.parametrize(
    "name", ["encoder.onnx", "decoder.onnx", "weights.safetensors", "subnet.json"]
)
def test_a_changed_byte_is_found(copied: Path, name: str):
    contents = bytearray((copied / name).read_bytes())
    contents[len(contents) // 2] ^= 1
    (copied / name).write_bytes(contents)
    with pytest.raises(ExportError, match=f"{name} is not the file that was exported"):
        load_bundle(copied)


def test_a_shortened_file_is_found_without_reading_all(copied: Path):
    path = copied / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"encoder\.onnx is not the file"):
        load_bundle(copied, verify=False)


def test_a_missing_file_is_found(copied: Path):
    (copied / "decoder.onnx").unlink()
    with pytest.raises(ExportError, match=r"lacks decoder\.onnx"):
        load_bundle(copied, verify=False)


def test_unverified_damage_is_still_a_sentence(copied: Path):
    path = copied / "encoder.onnx"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(DeviceError, match=r"encoder\.onnx"):
        load_bundle(copied, verify=False)


def test_what_is_no_bundle_is_refused(tmp_path: Path):
    with pytest.raises(ExportError, match=r"is no bundle: it has no manifest\.json"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"subnet": {}},
        {"files": {"../outside": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}},
    ],
    ids=["version", "subnet", "parent", "absolute"],
)
def test_a_manifest_that_can_not_be_true_is_refused(copied: Path, change: dict[str, object]):
    path = copied / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ExportError, match=r"manifest\.json is damaged or of another version"):
        load_bundle(copied)


def test_a_manifest_that_is_no_json_is_refused(copied: Path):
    (copied / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match="damaged"):
        load_bundle(copied)


def test_no_threads_are_refused(exported: Exported):
    with pytest.raises(UsageError, match="0 threads"):
        load_bundle(exported.path, threads=0)


def test_a_manifest_survives_its_json(bundle: Bundle):
    assert BundleManifest.from_json(bundle.manifest.to_json()) == bundle.manifest


def test_a_digest_is_that_of_sha256sum(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_file(tmp_path / "abc") == FileDigest(
        bytes=3, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_bundle_predicts_without_torch(exported: Exported):
    program = """
import sys
for name in ("torch", "torchvision", "segment_anything", "onnx", "scipy", "sklearn"):
    sys.modules[name] = None  # importing it fails from here on
import numpy as np
from hwsearch.export.load import load_bundle
bundle = load_bundle(sys.argv[1], threads=1)
bundle.set_image(np.zeros((40, 60, 3), np.uint8))
print(bundle.predict(box=[5, 5, 30, 30])[0].shape)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(exported.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout.strip(), ran.stderr) == ("(3, 40, 60)", "")
