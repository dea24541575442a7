"""The whole way, by the commands a user types: from a checkpoint to a bundle that segments."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import randomised_sam

import hwsearch
from hwsearch.cli.main import run
from hwsearch.data.open import open_dataset
from hwsearch.data.scenes.write import write_scenes

pytestmark = pytest.mark.slow


def command(capsys, *arguments):
    """Run a command with --json; its result."""
    code = run([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny checkpoint and a few scenes."""
    folder = tmp_path_factory.mktemp("stages")
    torch.save(randomised_sam(3).state_dict(), folder / "tiny.pth")
    write_scenes(folder / "data", counts={"train": 4, "val": 3, "test": 2}, seed=1, size=(96, 128))
    return folder


def test_from_checkpoint_to_masks(place, tmp_path, capsys):
    trained = place / "trained"
    built = command(
        capsys,
        *("supernet", "build", "--checkpoint", place / "tiny.pth", "--model", "custom"),
        *("--data", place / "data", "--out", place / "built", "--calibration-views", 3),
        *("--resolutions", "64,128", "--min-depth", 2),
    )
    space = hwsearch.load_supernet(place / "built").space
    assert built["subnets"] == space.size
    assert [layer["index"] for layer in built["importance"]] == [1, 2, 3]

    command(
        capsys,
        *("supernet", "train", place / "built", "--data", place / "data", "--out", trained),
        *("--steps", 2, "--images", 2, "--random-subnets", 1),
    )
    supernet = hwsearch.load_supernet(trained)
    before = hwsearch.load_supernet(place / "built").weights_digest()
    assert supernet.weights_digest() != before

    timing = ("--device", "cpu", "--supernet", trained, "--threads", 1, "--workspace", place)
    profiled = command(capsys, "profile", *timing, "--samples", 10, "--budget", 1)
    assert profiled["measured"] + profiled["failed"] >= 1
    assert profiled["failed"] == 0
    again = command(capsys, "profile", *timing, "--samples", 10, "--budget", 1)
    assert again["measured"] >= profiled["measured"]

    target_ms = 2 * profiled["slowest_ms"]  # generous: this test is not about speed
    searching = (
        *("search", *timing, "--target-latency", f"{target_ms}ms", "--data", place / "data"),
        *("--trials", 6, "--study", "tiny"),
    )
    found = command(capsys, *searching, "--allow-stale")
    assert found["trials"] >= 6
    assert found["pick"]["latency_ms"] <= target_ms
    assert found["pick"]["miou_val"] >= found["largest"]["miou_val"]
    pick = hwsearch.SubnetConfig.from_json(json.dumps(found["pick"]["subnet"]))
    assert space.contains(pick)
    assert found["front"][-1]["subnet"] == found["pick"]["subnet"]

    exported = command(
        capsys,
        *("export", "--study", "tiny", "--workspace", place, "--out", place / "bundle"),
        *("--precision", "fp16"),
    )
    assert exported["latency_ms"] > 0
    assert (exported["precision"]["asked"], exported["precision"]["images"]) == ("fp16", "data")
    assert exported["subnet"] == found["pick"]["subnet"]
    sample = open_dataset(place / "data", "val")[0]
    expected = _predicted_in_torch(supernet.extract(pick), sample)
    with hwsearch.load_bundle(place / "bundle", threads=1) as bundle:
        bundle.set_image(sample.image)
        masks, ious, _ = bundle.predict(box=sample.instances[0].box)
    np.testing.assert_allclose(ious, expected[1], atol=1e-3)
    assert np.mean(masks == expected[0]) > 0.995

    report = command(capsys, "report", "--study", "tiny", "--workspace", place)
    assert pick.id in (place / "studies" / "tiny" / "report.html").read_text()
    assert report["pick"] == found["pick"]

    _a_pick_is_tuned_and_exported(place, pick, capsys)
    _an_unreachable_target_ends_with_three(place, capsys)
    _a_damaged_bundle_is_refused(place, tmp_path, capsys)


def _predicted_in_torch(sam, sample):
    from segment_anything import SamPredictor

    predictor = SamPredictor(sam)
    predictor.set_image(sample.image)
    return predictor.predict(box=sample.instances[0].box)


def _a_pick_is_tuned_and_exported(place, pick, capsys):
    tuned, bundle = place / "tuned", place / "bundle"
    trained = command(
        capsys,
        *("supernet", "train", place / "trained", "--subnet", bundle, "--data", place / "data"),
        *("--out", tuned, "--steps", 2, "--images", 2),
    )
    assert trained["subnet"] == pick.id
    assert "random_subnets" not in trained
    judged = command(
        capsys, "supernet", "evaluate", tuned, "--subnet", bundle, "--data", place / "data"
    )
    assert judged["subnet"] == pick.model_dump(mode="json")
    assert trained["subnet/mean"] == pytest.approx(judged["miou"])
    exported = command(
        capsys,
        *("export", "--supernet", tuned, "--subnet", bundle, "--workspace", place),
        *("--out", place / "tuned-bundle"),
    )
    assert exported["subnet"] == judged["subnet"]
    name = "image_encoder.neck.0.weight"
    before, after = (
        hwsearch.load_supernet(folder).extract(pick).state_dict()[name]
        for folder in (place / "trained", tuned)
    )
    assert not torch.equal(before, after)


def _an_unreachable_target_ends_with_three(place, capsys):
    code = run(
        [
            *("search", "--device", "cpu", "--supernet", str(place / "trained"), "--threads", "1"),
            *("--workspace", str(place), "--target-latency", "0.001ms", "--study", "unreachable"),
            *("--data", str(place / "data"), "--trials", "4"),
        ]
    )
    printed = capsys.readouterr()
    assert code == 3
    assert "No subnet meets 0.001 ms" in printed.err
    assert "Traceback" not in printed.err


def _a_damaged_bundle_is_refused(place, tmp_path, capsys):
    copy = tmp_path / "bundle"
    shutil.copytree(place / "bundle", copy)
    with (copy / "encoder.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 64)
    picture = tmp_path / "image.png"
    from PIL import Image

    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(picture)
    code = run(
        ["predict", str(copy), str(picture), "--box", "5,5,30,30", "--out", str(tmp_path / "o.png")]
    )
    assert code == 1
    assert "encoder.onnx" in capsys.readouterr().err
    assert not (tmp_path / "o.png").exists()
