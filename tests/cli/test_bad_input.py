"""What a user gets wrong: one sentence on stderr, a non-zero exit, nothing half-written."""

import json
import pickle

import pytest
import torch
from PIL import Image
from tiny import randomised_sam

from hwsearch.cli.main import run
from hwsearch.supernet.store import DEMO_DIRECTORY


class Payload:
    """Would write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def fails(capsys):
    """Run a command that has to fail; what it says."""

    def check(*arguments, code):
        assert run([str(argument) for argument in arguments]) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        lines = [line for line in printed.err.splitlines() if line.startswith("hwsearch: ")]
        assert len(lines) == 1, printed.err
        return lines[0]

    return check


def build(checkpoint, tmp_path, *more):
    return (
        *("supernet", "build", "--checkpoint", checkpoint, "--data", "scenes"),
        *("--out", tmp_path / "out", *more),
    )


def test_a_workspace_that_is_a_file_is_a_sentence(fails, tmp_path):
    (tmp_path / "file").write_text("mine")
    for command, folder in (("profile", "file"), ("fit", "file/below/it")):
        said = fails(command, "--device", "cpu", "--workspace", tmp_path / folder, code=2)
        assert f"{tmp_path / 'file'} is a file: name another" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_a_supernet_is_not_built_over_a_trained_one(fails, tmp_path):
    trained = tmp_path / "out"
    trained.mkdir()
    (trained / "training-state.pt").write_bytes(b"weeks of work")
    assert "was trained" in fails(*build(tmp_path / "none.pth", tmp_path), code=2)
    assert [*trained.iterdir()] == [trained / "training-state.pt"]


def test_a_folder_named_demo_is_not_the_shipped_supernet(fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    manifest = json.loads((DEMO_DIRECTORY / "supernet.json").read_text())
    (tmp_path / "demo" / "supernet.json").write_text(json.dumps(manifest | {"history": []}))
    command = ("supernet", "build", "--checkpoint", "none.pth", "--data", "scenes")
    assert "no checkpoint file" in fails(*command, "--out", "demo", code=1)


def test_a_supernet_that_can_t_be_read_is_not_built_over(fails, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "supernet.json").write_text("{}")
    assert "delete it yourself" in fails(*build(tmp_path / "none.pth", tmp_path), code=2)


def test_a_supernet_is_not_built_onto_a_file(fails, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "can't be written" in fails(*build(tmp_path / "none.pth", tmp_path), code=2)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_missing_checkpoint(fails, tmp_path):
    assert "no checkpoint file" in fails(*build(tmp_path / "none.pth", tmp_path), code=1)
    assert not (tmp_path / "out").exists()


def test_a_truncated_checkpoint(fails, tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(randomised_sam(0).state_dict(), whole)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:5000])
    assert "damaged" in fails(*build(cut, tmp_path), code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code(fails, tmp_path, zipped):
    marker = tmp_path / "was-run"
    evil = tmp_path / "evil.pth"
    if zipped:
        torch.save({"weight": Payload(str(marker))}, evil)
    else:
        evil.write_bytes(pickle.dumps({"weight": Payload(str(marker))}))
    fails(*build(evil, tmp_path), code=1)
    assert not marker.exists()


def test_a_wrong_model(fails, tmp_path):
    checkpoint = tmp_path / "tiny.pth"
    torch.save(randomised_sam(0).state_dict(), checkpoint)
    message = fails(*build(checkpoint, tmp_path, "--model", "vit_b"), code=1)
    assert "not vit_b" in message
    assert "--model custom" in message
    assert "vit_b, vit_l" in fails(*build(checkpoint, tmp_path, "--model", "vit_x"), code=2)


def coco(folder, *, file_name="a.png", segmentation=None):
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(folder / "images" / "a.png")
    annotation = {
        "id": 7,
        "image_id": 1,
        "category_id": 1,
        "bbox": [2, 2, 10, 10],
        "area": 100,
        "iscrowd": 0,
        "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]] if segmentation is None else segmentation,
    }
    content = {
        "images": [{"id": 1, "file_name": file_name, "width": 32, "height": 24}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "thing"}],
    }
    for split in ("train", "val"):
        (folder / f"annotations_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("fault", "said"),
    [({"file_name": "gone.png"}, "gone.png"), ({"segmentation": []}, "7")],
    ids=["a missing image", "an empty mask list"],
)
def test_faulty_coco_data(fails, tmp_path, fault, said):
    checkpoint = tmp_path / "tiny.pth"
    torch.save(randomised_sam(0).state_dict(), checkpoint)
    data = coco(tmp_path / "data", **fault)
    message = fails(
        *("supernet", "build", "--checkpoint", checkpoint, "--data", data),
        *("--out", tmp_path / "out"),
        code=1,
    )
    assert said in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0", "soon", "-3ms", "nan", "1e999", "40 minutes", ""])
def test_a_target_that_is_no_latency(fails, tmp_path, text):
    message = fails(
        *("search", f"--target-latency={text}", "--data", "scenes", "--workspace", tmp_path), code=2
    )
    assert "40ms" in message
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_here(fails, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for command in (
        ("profile", "--device", "cuda"),
        ("search", "--device", "cuda", "--target-latency", "5ms", "--data", "scenes"),
    ):
        assert "NVIDIA" in fails(*command, "--workspace", tmp_path, code=1)
    assert "cpu, cuda" in fails("profile", "--device", "tpu", "--workspace", tmp_path, code=2)


def test_things_that_are_not_there(fails, tmp_path):
    assert "supernet.json" in fails("supernet", "evaluate", tmp_path, "--data", "scenes", code=1)
    assert "no finished study" in fails("report", "--study", "x", "--workspace", tmp_path, code=1)
    assert "can't be named" in fails("report", "--study", "../x", "--workspace", tmp_path, code=2)
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    predict = ("predict", tmp_path, picture, "--out", tmp_path / "o.png", "--box")
    assert "no bundle" in fails(*predict, "1,1,5,5", code=1)
    assert "no box" in fails(*predict, "5,5,1,1", code=2)


TRAIN = ("supernet", "train", "demo", "--data", "scenes", "--out", "nowhere", "--steps", "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search"], "--data"),
        (["search", "--data", "scenes"], "--target-latency"),
        (["no-such-command"], "no-such-command"),
        (["profile", "--device", "cpu", "--samples", "many"], "--samples"),
        (["supernet", "train", "demo"], "--data"),
        ([*TRAIN, "--subnet", "largest", "--random-subnets", "1"], "without --random-subnets"),
        ([*TRAIN, "--subnet", "nowhere.json"], "or a bundle"),
    ],
)
def test_arguments_that_are_missing_or_wrong(capsys, arguments, said):
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "stops", "goes_on"),
    [
        (["devices"], "hwsearch.runtime.devices.list_devices", False),
        (["profile", "--device", "cpu"], "hwsearch.runtime.devices.resolve_target", True),
        (TRAIN, "hwsearch.workflow.training.train_supernet", True),
        (["supernet", "inspect", "demo"], "hwsearch.workflow.inspect.inspect_supernet", False),
    ],
)
def test_an_interruption_says_whether_the_command_can_go_on(
    fails, monkeypatch, arguments, stops, goes_on
):
    def interrupted(*_: object, **__: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(stops, interrupted)
    said = fails(*arguments, code=130)
    assert "Stopped." in said
    assert ("goes on where it was" in said) == goes_on


@pytest.mark.parametrize(
    "arguments",
    [("fit", "--seed", 2**32), ("profile", "--half-width", 0)],
    ids=lambda arguments: arguments[1],
)
def test_numbers_that_would_fail_only_later_are_refused_at_once(capsys, tmp_path, arguments):
    command, option, value = arguments
    assert run([command, "--device", "cpu", "--workspace", str(tmp_path), option, str(value)]) == 2
    assert option in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
