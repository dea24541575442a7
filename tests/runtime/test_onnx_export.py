"""Exported files compute what the model computes, for every elastic dimension, and stay clean."""

import errno
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from segment_anything.modeling import Sam
from tiny import MIXED, SUBNETS, random_images, randomised_sam, tiny_supernet
from torch import nn

from hwsearch.errors import ExportError
from hwsearch.runtime import onnx_export
from hwsearch.runtime.onnx_export import export_decoder, export_encoder, read_metadata
from hwsearch.sam import decode
from hwsearch.supernet.supernet import Supernet

Exported = tuple[Sam, Path]

# What traced exports leave behind and TensorRT parsers have failed on.
SHAPE_ARITHMETIC = {"Shape", "Expand", "Range", "Mod", "Tile", "OneHot", "Resize", "If", "Loop"}


def run(path: Path, **inputs: ArrayLike):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options)
    return session.run(None, {name: np.asarray(value) for name, value in inputs.items()})


def assert_close(got: np.ndarray, want: torch.Tensor):
    """Equal within what fp32 leaves of values of this size."""
    want = want.numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(1.0, np.abs(want).max()))


def operators(path: Path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def free_dimensions(path: Path):
    graph = onnx.load(path).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


@pytest.fixture(scope="module")
def supernet():
    return tiny_supernet(seed=1)


@pytest.fixture
def mixed(supernet: Supernet):
    return supernet.extract(MIXED)


@pytest.fixture(scope="module")
def decoder(supernet: Supernet, tmp_path_factory: pytest.TempPathFactory):
    """A subnet and its exported decoder."""
    sam = supernet.extract(MIXED)
    return sam, export_decoder(sam, tmp_path_factory.mktemp("decoder") / "decoder.onnx")


@pytest.mark.parametrize("name", SUBNETS)
def test_the_encoder_equals_the_model(name: str, supernet: Supernet, tmp_path: Path):
    sam = supernet.extract(SUBNETS[name])
    path = export_encoder(sam, tmp_path / "encoder.onnx")
    images = random_images(SUBNETS[name].resolution, count=2)
    with torch.no_grad():
        want = sam.image_encoder(images)
    assert_close(run(path, image=images)[0], want)
    assert_close(run(path, image=images[:1])[0], want[:1])


def test_windows_that_fit_the_grid_are_not_padded(tmp_path: Path):
    sam = randomised_sam(3)
    for block in sam.image_encoder.blocks:
        if block.window_size:
            block.window_size = 4  # of 8 patches; its tables are interpolated, as the model does
    path = export_encoder(sam, tmp_path / "encoder.onnx")
    images = random_images(128, count=1)
    with torch.no_grad():
        assert_close(run(path, image=images)[0], sam.image_encoder(images))
    assert "Pad" not in operators(path)


def test_encoder_without_relative_positions(tmp_path: Path):
    sam = randomised_sam(4)
    for block in sam.image_encoder.blocks:
        block.attn.use_rel_pos = False
    path = export_encoder(sam, tmp_path / "encoder.onnx")
    images = random_images(128, count=1)
    with torch.no_grad():
        assert_close(run(path, image=images)[0], sam.image_encoder(images))


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("kind", ["box", "point", "point and box"])
def test_the_decoder_equals_the_model(kind: str, prompts: int, decoder: Exported):
    sam, path = decoder
    rng = torch.Generator().manual_seed(5)
    embeddings = torch.randn(1, 32, 7, 7, generator=rng)
    corners = torch.rand(prompts, 2, 2, generator=rng) * 112
    points = torch.rand(prompts, 1, 2, generator=rng) * 112
    ones = torch.ones(prompts, 1)
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(
            points=None if kind == "box" else (points, ones),
            boxes=None if kind == "point" else corners.flatten(1),
            masks=None,
        )
        want_masks, want_ious = sam.mask_decoder.predict_masks(
            image_embeddings=embeddings,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
    coords, labels = {
        "box": (corners, [2, 3]),
        "point": (torch.cat([points, torch.zeros_like(points)], dim=1), [1, -1]),
        "point and box": (torch.cat([points, corners], dim=1), [1, 2, 3]),
    }[kind]
    masks, ious = run(
        path,
        image_embeddings=embeddings,
        point_coords=coords,
        point_labels=np.tile(np.float32(labels), (prompts, 1)),
    )
    assert_close(masks, want_masks)
    assert_close(ious, want_ious)


@settings(max_examples=25)
@given(prompts=st.integers(1, 4), points=st.integers(1, 6), seed=st.integers(0, 99))
def test_any_number_of_points_with_any_labels(
    decoder: Exported, prompts: int, points: int, seed: int
):
    sam, path = decoder
    rng = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(1, 32, 7, 7, generator=rng)
    coords = torch.rand(prompts, points, 2, generator=rng) * 112
    labels = torch.randint(-1, 4, (prompts, points), generator=rng).float()
    with torch.no_grad():
        want_masks, want_ious = decode(sam, embeddings, coords[None], labels[None])
    masks, ious = run(path, image_embeddings=embeddings, point_coords=coords, point_labels=labels)
    assert_close(masks, want_masks[0])
    assert_close(ious, want_ious[0])


def test_the_graphs_compute_no_shapes_and_stay_small(mixed: Sam, decoder: Exported, tmp_path: Path):
    encoder = operators(export_encoder(mixed, tmp_path / "encoder.onnx"))
    assert not SHAPE_ARITHMETIC & set(encoder)
    outside_blocks = 3 + 7  # patch embedding and neck
    assert encoder.total() - outside_blocks <= 50 * len(mixed.image_encoder.blocks)
    # The tokens of the decoder are repeated for each prompt: one Shape, one Expand.
    decoder_counts = operators(decoder[1])
    assert {op: decoder_counts[op] for op in SHAPE_ARITHMETIC & set(decoder_counts)} == {
        "Shape": 1,
        "Expand": 1,
    }


def test_the_files_are_valid_onnx_with_the_documented_names(
    mixed: Sam, decoder: Exported, tmp_path: Path
):
    encoder = export_encoder(mixed, tmp_path / "encoder.onnx")
    for path in (encoder, decoder[1]):
        onnx.checker.check_model(str(path), full_check=True)
    assert free_dimensions(encoder) == {
        "image": ["batch", 3, 112, 112],
        "image_embeddings": ["batch", 32, 7, 7],
    }
    assert free_dimensions(decoder[1]) == {
        "image_embeddings": [1, 32, 7, 7],
        "point_coords": ["prompts", "points", 2],
        "point_labels": ["prompts", "points"],
        "low_res_masks": ["prompts", 4, 28, 28],
        "iou_predictions": ["prompts", 4],
    }


def test_the_files_say_how_to_feed_them(mixed: Sam, tmp_path: Path):
    mixed.mask_threshold = 0.25
    facts = read_metadata(export_encoder(mixed, tmp_path / "encoder.onnx", name="custom-1/abc"))
    assert facts["model"] == "custom-1/abc"
    assert facts["part"] == "encoder"
    assert facts["resolution"] == "112"
    assert facts["pixel_mean"] == "[123.675, 116.28, 103.53]"
    assert facts["pixel_std"] == "[58.395, 57.12, 57.375]"
    assert facts["mask_threshold"] == "0.25"


def test_nodes_are_named_after_their_block(mixed: Sam, tmp_path: Path):
    graph = onnx.load(export_encoder(mixed, tmp_path / "encoder.onnx")).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "/blocks.2/attn/qkv/MatMul" in names


def test_export_prints_nothing_and_leaves_the_model_as_it_was(
    mixed: Sam, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    before = {name: value.clone() for name, value in mixed.state_dict().items()}
    export_encoder(mixed, tmp_path / "encoder.onnx")
    export_decoder(mixed, tmp_path / "decoder.onnx")
    assert capfd.readouterr() == ("", "")
    after = mixed.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder.onnx", "encoder.onnx"]


def test_weights_too_large_for_protobuf_go_beside_the_graph(
    mixed: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = random_images(112, count=1)
    whole = run(export_encoder(mixed, tmp_path / "whole.onnx"), image=images)[0]
    monkeypatch.setattr(onnx_export, "INLINE_WEIGHT_BYTES", 1000)
    path = export_encoder(mixed, tmp_path / "split.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "split.onnx",
        "split.onnx.data",
        "whole.onnx",
    ]
    np.testing.assert_array_equal(run(path, image=images)[0], whole)


def test_a_full_disk_is_a_sentence_and_the_old_file_stays(
    mixed: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "encoder.onnx"
    path.write_text("old")

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(ExportError, match=r"encoder\.onnx could not be written: No space left"):
        export_encoder(mixed, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_positions_of_another_resolution_are_refused(tmp_path: Path):
    sam = randomised_sam(0)
    sam.image_encoder.img_size = 64
    with pytest.raises(ExportError, match="takes 64 pixels but its position table is not 4 by 4"):
        export_encoder(sam, tmp_path / "encoder.onnx")


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(approximate="tanh")])
def test_an_activation_that_no_sam_has_is_refused(activation: nn.Module, tmp_path: Path):
    sam = randomised_sam(0)
    sam.image_encoder.blocks[1].mlp.act = activation
    with pytest.raises(ExportError, match="ReLU and exact GELU"):
        export_encoder(sam, tmp_path / "encoder.onnx")


@pytest.mark.parametrize("contents", [None, b"no protobuf \xff\xff\xff"])
def test_metadata_of_no_onnx_file_is_a_sentence(contents: bytes | None, tmp_path: Path):
    path = tmp_path / "x.onnx"
    if contents:
        path.write_bytes(contents)
    with pytest.raises(ExportError, match=r"x\.onnx can't be read as an ONNX file"):
        read_metadata(path)
