"""Checkpoints: the geometry is read off the shapes, and nothing in a file is ever run."""

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from tiny import GEOMETRY, randomised_sam

from hwsearch.checkpoint import OFFICIAL, infer_geometry, load_checkpoint, read_state_dict
from hwsearch.errors import CheckpointError, UsageError
from hwsearch.sam import build_sam

Save = Callable[[dict[str, torch.Tensor], Path], None]
FORMATS: dict[str, Save] = {".pth": torch.save, ".safetensors": save_file}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_model_survives_its_file(tmp_path: Path, suffix: str):
    sam = randomised_sam(1)
    path = tmp_path / f"sam{suffix}"
    FORMATS[suffix](sam.state_dict(), path)
    loaded, geometry = load_checkpoint(path)
    assert geometry == GEOMETRY
    assert not loaded.training
    state = sam.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_half_precision_becomes_fp32(tmp_path: Path):
    path = tmp_path / "sam.pth"
    state = {name: value.half() for name, value in randomised_sam(0).state_dict().items()}
    torch.save(state, path)
    read = read_state_dict(path)
    assert {value.dtype for value in read.values()} == {torch.float32}
    assert all(torch.equal(value, state[name].float()) for name, value in read.items())


@pytest.mark.parametrize("model", OFFICIAL)
def test_the_official_models_are_recognised(model: str):
    with torch.device("meta"):
        official = sam_model_registry[model]()
    state = official.state_dict()
    geometry = infer_geometry(state)
    assert geometry.model == model
    assert (geometry.image_size, geometry.window_size) == (1024, 14)
    blocks = official.image_encoder.blocks
    assert geometry.global_layers == tuple(i for i, b in enumerate(blocks) if b.window_size == 0)
    # A model of that geometry has the same parameters, so the reading missed nothing.
    with torch.device("meta"):
        rebuilt = build_sam(geometry).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in state.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 2, "global_layers": ()},
        {"global_layers": (0, 1, 2, 3), "window_size": 8},
        {"window_size": 14},
        {"mlp_width": 40, "heads": 2},
        {"patch_size": 32, "image_size": 256},
        {"prompt_dim": 64, "mask_in_channels": 8, "multimask_outputs": 4},
        {"decoder_depth": 1, "decoder_mlp_width": 24, "iou_head_depth": 2, "iou_head_width": 16},
    ],
)
def test_any_geometry_is_read_back(changes: dict[str, object]):
    geometry = GEOMETRY.model_copy(update=changes)
    assert infer_geometry(build_sam(geometry).state_dict()) == geometry


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_file_is_called_damaged(tmp_path: Path, suffix: str):
    path = tmp_path / f"sam{suffix}"
    FORMATS[suffix](randomised_sam(0).state_dict(), path)
    whole = path.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
            read_state_dict(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_something_else_is_called_damaged(tmp_path: Path, suffix: str):
    path = tmp_path / f"sam{suffix}"
    path.write_text("<html>404: not found</html>\n" * 20)
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damage_of_any_kind_is_a_checkpoint_error(tmp_path: Path, suffix: str):
    """Old checkpoints are bare pickles: cut or altered, they fail in many different ways."""
    path = tmp_path / f"sam{suffix}"
    state = {"a": torch.arange(3.0), "b": torch.zeros(2, 2)}
    if suffix == ".pth":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        save_file(state, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cut = [whole[:length] for length in range(0, len(whole), 5)]
    places = rng.integers(len(whole), size=150)
    altered = [whole[:place] + rng.bytes(1) + whole[place + 1 :] for place in places]
    for content in cut + altered:
        path.write_bytes(content)
        # Nothing else may be raised; a byte that no tensor needs may go unnoticed.
        with contextlib.suppress(CheckpointError):
            read_state_dict(path)


class Intruder:
    """Pickled, it is a call that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.trace,))


WAYS_IN: dict[str, Callable[[object, Path], None]] = {
    "torch": torch.save,
    "old torch": lambda content, path: torch.save(
        content, path, _use_new_zipfile_serialization=False
    ),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content, 2)) and None,
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, way: str):
    path, trace = tmp_path / "sam.pth", tmp_path / "trace"
    WAYS_IN[way]({"weight": torch.zeros(2), "extra": Intruder(trace)}, path)
    with pytest.raises(CheckpointError, match="would run code"):
        load_checkpoint(path)
    assert not trace.exists()
    # The file is a real threat: read without care, it does what it wants.
    if way == "pickle":
        pickle.loads(path.read_bytes())
        assert trace.exists()


@pytest.mark.parametrize("model", ["vit_b", "vit_h"])
def test_another_model_than_asked_for_is_refused(tmp_path: Path, model: str):
    path = tmp_path / "sam.pth"
    torch.save(randomised_sam(0).state_dict(), path)
    with pytest.raises(CheckpointError, match=rf"width 32, 4 layers, 4 heads\), not {model}"):
        load_checkpoint(path, model=model)
    assert load_checkpoint(path, model="custom")[1] == GEOMETRY


def test_an_unknown_model_name_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no model 'vit_x': take one of vit_b, vit_l, vit_h"):
        load_checkpoint(tmp_path / "sam.pth", model="vit_x")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no checkpoint file .*nowhere\.pth"):
        load_checkpoint(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "content", [[torch.zeros(2)], {"epoch": 3}, {1: torch.zeros(2)}, torch.zeros(2)]
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object):
    path = tmp_path / "sam.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="no state dict"):
        load_checkpoint(path)


def test_another_kind_of_model_is_refused(tmp_path: Path):
    path = tmp_path / "resnet.pth"
    torch.save(torch.nn.Linear(3, 4).state_dict(), path)
    with pytest.raises(CheckpointError, match="no Segment Anything checkpoint"):
        load_checkpoint(path)


def test_a_sam_that_lacks_a_tensor_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "sam.pth"
    state = randomised_sam(0).state_dict()
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"mask_decoder\.iou_token\.weight"):
        load_checkpoint(path)
