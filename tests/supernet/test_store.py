"""The supernet directory: written, read back, and refused where it is damaged."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import GEOMETRY, MIXED, random_images, tiny_supernet

from hwsearch.errors import CheckpointError
from hwsearch.records import LayerImportance, LayerSpread, ScoreSpread
from hwsearch.supernet.store import (
    DEMO_DIRECTORY,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    SupernetManifest,
    load_manifest,
    load_supernet,
    save_supernet,
    supernet_directory,
)
from hwsearch.supernet.supernet import Supernet

IMPORTANCE = (
    LayerImportance(
        index=2, is_global=False, miou_drop=-0.01, mlp_drop=0.02, removal_probability=0.7
    ),
)
SPREAD = ScoreSpread(
    heads=(0.25, 0.5, 0.2, 0.05), first_neurons=(0.3, 0.6, 1.0), best_neurons=(0.4, 0.7, 1.0)
)
SCORES = tuple(
    LayerSpread(index=index, mlp_widths=(16, 32, 64), methods={"taylor": SPREAD})
    for index in range(4)
)


def manifest_of(supernet: Supernet) -> SupernetManifest:
    return SupernetManifest(
        geometry=supernet.geometry,
        space=supernet.space,
        importance=IMPORTANCE,
        scores=SCORES,
        ordering="wanda",
        framing="object",
        provenance={"checkpoint": "tiny.pth"},
        history=({"steps": 20, "data": "scenes", "loss": 0.5},),
    )


@pytest.fixture
def directory(tmp_path: Path, supernet: Supernet):
    """A supernet directory on disk."""
    save_supernet(tmp_path / "net", supernet, manifest_of(supernet))
    return tmp_path / "net"


def test_a_supernet_survives_its_directory(directory: Path, supernet: Supernet):
    loaded = load_supernet(directory)
    assert loaded.weights_digest() == supernet.weights_digest()
    assert (loaded.geometry, loaded.space) == (GEOMETRY, supernet.space)
    assert loaded.importance == IMPORTANCE
    assert loaded.removal_probabilities() == {2: 0.7}
    manifest = load_manifest(directory)
    assert manifest.weights_sha256 is not None
    assert manifest.model_copy(update={"weights_sha256": None}) == manifest_of(supernet)
    assert manifest.scores == SCORES
    assert {path.name for path in directory.iterdir()} == {MANIFEST_NAME, WEIGHTS_NAME}


def test_a_manifest_from_before_scores_were_kept_is_read(directory: Path):
    fields = json.loads((directory / MANIFEST_NAME).read_text())
    del fields["scores"], fields["importance"][0]["mlp_drop"]
    (directory / MANIFEST_NAME).write_text(json.dumps(fields))
    manifest = load_manifest(directory)
    assert manifest.scores == ()
    assert manifest.importance[0].mlp_drop is None
    assert load_manifest("demo").importance[0].index == 1


@pytest.mark.parametrize(
    "scores",
    [SCORES[:3], (*SCORES[:3], SCORES[3].model_copy(update={"methods": {"wanda": SPREAD}}))],
)
def test_scores_that_are_not_of_all_layers_alike_are_refused(
    directory: Path, scores: tuple[LayerSpread, ...]
):
    fields = json.loads((directory / MANIFEST_NAME).read_text())
    fields["scores"] = [layer.model_dump() for layer in scores]
    (directory / MANIFEST_NAME).write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="scores are"):
        load_manifest(directory)


def test_half_precision_halves_the_file_and_rounds_the_weights(tmp_path: Path, directory: Path):
    supernet = tiny_supernet()
    save_supernet(tmp_path / "half", supernet, manifest_of(supernet), half=True)
    sizes = [(path / WEIGHTS_NAME).stat().st_size for path in (tmp_path / "half", directory)]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load_supernet(tmp_path / "half")
    for name, tensor in loaded.sam.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, supernet.sam.state_dict()[name].half().float())
    images = random_images(MIXED.resolution)
    with torch.no_grad():
        ours, theirs = (n.extract(MIXED).image_encoder(images) for n in (loaded, supernet))
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_saving_again_replaces_the_directory(directory: Path):
    other = tiny_supernet(1)
    save_supernet(directory, other, manifest_of(other))
    assert load_supernet(directory).weights_digest() == other.weights_digest()


def test_what_is_no_supernet_is_said_to_be_none(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"is no supernet: it has no supernet\.json"):
        load_supernet(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "Invalid JSON"),
        ("{}", "geometry: Field required"),
        ('{"schema_version": 2}', "schema_version"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(directory: Path, text: str, fault: str):
    (directory / MANIFEST_NAME).write_text(text)
    with pytest.raises(CheckpointError, match=rf"supernet\.json is damaged: .*{fault}") as caught:
        load_supernet(directory)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_no_text_is_damaged(directory: Path):
    (directory / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="damaged"):
        load_supernet(directory)


def test_a_space_that_does_not_fit_the_geometry_is_damage(directory: Path):
    fields = json.loads((directory / MANIFEST_NAME).read_text())
    fields["geometry"]["heads"] = 5
    (directory / MANIFEST_NAME).write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="no multiple of heads"):
        load_supernet(directory)


def test_truncated_weights_are_damaged(directory: Path):
    weights = directory / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged"):
        load_supernet(directory)


def test_missing_weights_are_named(directory: Path):
    (directory / WEIGHTS_NAME).unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint file .*weights\.safetensors"):
        load_supernet(directory)


def test_weights_of_another_geometry_are_refused(directory: Path):
    weights = load_file(directory / WEIGHTS_NAME)
    weights["image_encoder.neck.0.weight"] = torch.zeros(8, 32, 1, 1)
    save_file(weights, directory / WEIGHTS_NAME)
    with pytest.raises(CheckpointError, match=r"do not fit its supernet\.json"):
        load_supernet(directory)


def test_demo_names_the_shipped_supernet():
    assert supernet_directory("demo") == DEMO_DIRECTORY
    assert DEMO_DIRECTORY.name == "demo"
    assert supernet_directory("elsewhere/demo") == Path("elsewhere/demo")


def test_weights_of_another_supernet_are_refused(directory: Path, tmp_path: Path):
    other = tiny_supernet(seed=1)
    save_supernet(tmp_path / "other", other, manifest_of(other))
    (tmp_path / "other" / WEIGHTS_NAME).replace(directory / WEIGHTS_NAME)
    with pytest.raises(CheckpointError, match="was replaced"):
        load_supernet(directory)
