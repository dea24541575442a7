"""`hwsearch supernet evaluate`: a subnet in torch, and the same one as a bundle."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import GEOMETRY, MIXED, rectangle, tiny_space, tiny_supernet

from hwsearch.cli.main import run
from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.data.rle import encode
from hwsearch.errors import UsageError
from hwsearch.export.bundle import write_bundle
from hwsearch.supernet.store import SupernetManifest, save_supernet
from hwsearch.workflow.evaluate import EvaluationPlan, evaluate_model

SEED = 2
SIZE = (96, 128)


@dataclass(frozen=True)
class Place:
    """A supernet, the bundle of its subnet MIXED, and two data folders."""

    supernet: Path
    subnet: Path
    bundle: Path
    classed: Path
    plain: Path


def write_data(root: Path, *, counts: tuple[int, ...], categories: tuple[int, ...]) -> Path:
    """Noise with rectangles in COCO's form; without categories, objects have no class."""
    rng = np.random.default_rng(len(counts))
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, count in enumerate(counts):
        pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        name = f"{number}.png"
        Image.fromarray(pixels).save(root / "images" / name)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for place in range(count):
            mask = rectangle(SIZE, 11 * place, 9 * place, 11 * place + 40, 9 * place + 30)
            annotation = {"image_id": number, "segmentation": encode(mask), "iscrowd": 0}
            if categories:
                annotation["category_id"] = categories[place % len(categories)]
            annotations.append(annotation | {"id": len(annotations) + 1})
    document = {"images": images, "annotations": annotations}
    (root / "annotations_val.json").write_text(json.dumps(document))
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("evaluate")
    supernet = tiny_supernet(seed=SEED)
    manifest = SupernetManifest(geometry=GEOMETRY, space=tiny_space())
    save_supernet(root / "supernet", supernet, manifest)
    (root / "subnet.json").write_text(MIXED.to_json())
    bundle = write_bundle(
        root / "bundle", sam=supernet.extract(MIXED), geometry=GEOMETRY, subnet=MIXED
    )
    return Place(
        supernet=root / "supernet",
        subnet=root / "subnet.json",
        bundle=bundle,
        classed=write_data(root / "classed", counts=(3, 1, 4), categories=(5, 9)),
        plain=write_data(root / "plain", counts=(2, 2), categories=()),
    )


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str]):
    """What the command prints."""

    def call(*arguments: object) -> str:
        code = run(["supernet", "evaluate", *map(str, arguments), "--framing", "image"])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return call


@pytest.fixture(scope="module")
def found(place: Place):
    """The bundle's figures on both data sets."""
    plan = EvaluationPlan(data=[str(place.classed), str(place.plain)], framing="image")
    return evaluate_model(place.bundle, plan).as_json()


@pytest.mark.parametrize("framing", ["image", "object"])
def test_the_bundle_is_as_accurate_as_the_subnet(place: Place, framing: str):
    plan = EvaluationPlan(data=[str(place.classed), str(place.plain)], framing=framing)
    torchs = evaluate_model(place.supernet, plan, subnet=str(place.subnet)).as_json()
    bundles = evaluate_model(place.bundle, plan).as_json()
    assert bundles.keys() == torchs.keys()
    for key in ("miou", "miou_oracle", "one_click_miou", "one_click_miou_oracle"):
        assert 0.01 < torchs[key] < 0.99
        assert bundles[key] == pytest.approx(torchs[key], abs=1e-3)
    assert bundles["miou_interval"] == pytest.approx(torchs["miou_interval"], abs=2e-3)
    assert bundles["miou_by_size"] == pytest.approx(torchs["miou_by_size"], abs=1e-3)
    for key in ("params", "macs", "subnet", "instances", "box_floor"):
        assert bundles[key] == torchs[key]
    assert bundles["params"] == encoder_params(GEOMETRY, MIXED)
    assert bundles["macs"] == encoder_macs(GEOMETRY, MIXED)
    assert {accuracy["framing"] for accuracy in bundles["sets"].values()} == {framing}


def test_the_command_takes_a_bundle_where_it_takes_a_supernet(place: Place, evaluated, found):
    printed = evaluated(place.bundle, "--data", place.classed, "--data", place.plain, "--json")
    shown = json.loads(printed)
    assert shown.keys() == found.keys()
    assert shown["sets"].keys() == found["sets"].keys()
    for key in ("miou", "miou_oracle", "one_click_miou", "instances", "params", "macs"):
        assert shown[key] == pytest.approx(found[key])


def test_sets_weigh_alike(found):
    classed, plain = found["sets"]["classed"], found["sets"]["plain"]
    assert (classed["instances"], plain["instances"], found["instances"]) == (8, 4, 12)
    for key in ("miou", "miou_oracle", "one_click_miou", "box_floor"):
        assert found[key] == pytest.approx((classed[key] + plain[key]) / 2)
    low, high = found["miou_interval"]
    assert low < found["miou"] < high
    assert high - low < max(np.ptp(classed["miou_interval"]), np.ptp(plain["miou_interval"]))


def test_one_set_has_the_interval_of_the_mean(place: Place):
    plan = EvaluationPlan(data=[str(place.classed)], framing="image", seed=3)
    found = evaluate_model(place.bundle, plan)
    assert found.miou_interval == found.sets["classed"].miou_interval


def test_a_bundle_that_does_not_tell_its_framing_is_not_guessed_at(place: Place):
    with pytest.raises(UsageError, match="say --framing"):
        evaluate_model(place.bundle, EvaluationPlan(data=[str(place.classed)]))


def test_data_sets_of_one_name_are_both_counted(place: Place):
    source = str(place.plain)
    found = evaluate_model(place.bundle, EvaluationPlan(data=[source, source], framing="image"))
    assert list(found.sets) == ["plain", "plain (2)"]


def test_ap_is_given_where_there_are_classes(found):
    classed, plain = found["sets"]["classed"], found["sets"]["plain"]
    assert 0 <= classed["ap"] <= classed["ap50"] <= 1
    assert plain["ap"] is plain["ap50"] is None


def test_every_figure_stands_beside_its_prompt_and_its_selection(place: Place, evaluated):
    lines = evaluated(place.bundle, "--data", place.classed, "--data", place.plain).splitlines()
    figures = [line for line in lines if "mIoU" in line or "AP" in line]
    assert len(figures) == 2 * 5 + 1 + 4
    for line in figures:
        assert line.startswith(("  box prompt, ", "  one click, "))
        assert any(how in line for how in ("predicted IoU", "oracle", "the filled box"))
    assert sum("AP50" in line for line in lines) == 1
    assert sum("95 % interval" in line for line in lines) == 3


def test_a_bundle_takes_no_subnet(place: Place, capsys: pytest.CaptureFixture[str]):
    arguments = ["--data", str(place.plain), "--subnet", "largest"]
    assert run(["supernet", "evaluate", str(place.bundle), *arguments]) == 2
    printed = capsys.readouterr()
    assert "leave --subnet out" in printed.err
    assert printed.out == ""


def test_a_damaged_bundle_is_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for file in place.bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    encoder = tmp_path / "encoder.onnx"
    encoder.write_bytes(encoder.read_bytes()[:-1])
    assert run(["supernet", "evaluate", str(tmp_path), "--data", str(place.plain)]) != 0
    assert "encoder.onnx" in capsys.readouterr().err
