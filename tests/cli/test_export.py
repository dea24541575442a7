"""`hwsearch export` of a subnet without a study: engines for real, and what can go wrong."""

import importlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import GEOMETRY, tiny_space, tiny_supernet

from hwsearch.cli.main import run
from hwsearch.data.scenes.write import write_scenes
from hwsearch.export import bundle as bundle_module
from hwsearch.export import place as place_module
from hwsearch.export.manifest import check_files, read_manifest
from hwsearch.runtime.tensorrt_info import read_engine_info
from hwsearch.supernet.store import SupernetManifest, save_supernet

MODULES = ("tensorrt", "tensorrt_rtx_bindings")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A tiny supernet, and a few images with masks."""
    folder = tmp_path_factory.mktemp("place")
    manifest = SupernetManifest(geometry=GEOMETRY, space=tiny_space(), framing="image")
    save_supernet(folder / "supernet", tiny_supernet(seed=2), manifest)
    write_scenes(folder / "data", counts={"train": 1, "val": 3, "test": 3}, seed=1, size=(96, 128))
    return folder


@pytest.fixture
def rtx() -> None:
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )


def arguments(place: Path, out: Path, *more: object) -> list[str]:
    words = ("export", "--supernet", place / "supernet", "--subnet", "smallest", "--out", out)
    return [str(word) for word in (*words, "--workspace", out.parent / "work", *more)]


def fails(capsys: Any, *words: object) -> tuple[int, str]:
    code = run([str(word) for word in words])
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("hwsearch: ")]
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert len(lines) == 1, printed.err
    return code, lines[0]


@pytest.mark.usefixtures("rtx")
def test_engines_for_two_architectures(place: Path, tmp_path: Path, capsys: Any):
    out = tmp_path / "bundle"
    more = ("--format", "tensorrt", "--gpu-arch", "sm86", "--gpu-arch", "SM89", "--json")
    limit = ("--engine-workspace", "512MiB")
    assert run(arguments(place, out, *more, *limit)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["latency_ms"], printed["miou"], printed["precision"]) == (None, None, None)
    manifest = read_manifest(out)
    check_files(out, manifest, digests=True)
    for name in ("encoder", "decoder"):
        info = read_engine_info(out / f"{name}.engine")
        assert info.gpu_archs == ("SM86", "SM89")
        assert info.workspace_bytes == 512 << 20
        assert info.onnx_file == f"{name}.onnx"
        assert info in manifest.engines
        assert f"{name}.engine.json" in manifest.files
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("rtx")
def test_a_precision_is_judged_on_the_users_images(place: Path, tmp_path: Path, capsys: Any):
    out = tmp_path / "bundle"
    engines = ("--format", "tensorrt", "--gpu-arch", "sm89", "--precision", "fp16")
    assert run(arguments(place, out, *engines, "--data", place / "data")) == 0
    text = capsys.readouterr().out
    assert "Asked for fp16: the encoder is " in text
    assert "they were not run" in text
    plan = read_manifest(out).precision
    assert plan is not None
    assert (plan.asked, plan.images, plan.calibration_images) == ("fp16", "data", 0)
    assert read_engine_info(out / "encoder.engine").onnx_file == plan.encoder.file
    assert plan.parity.mask_iou_mean >= plan.mask_iou_limit


def test_int8_is_calibrated_on_other_images_than_it_is_judged_on(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    choose = bundle_module.choose_precision

    def choosing(*given: Any, options: Any, **more: Any) -> Any:
        asked.append(options)
        return choose(*given, options=options, **more)

    monkeypatch.setattr(bundle_module, "choose_precision", choosing)
    more = ("--precision", "int8", "--data", place / "data", "--json")
    assert run(arguments(place, tmp_path / "b", *more)) == 0
    printed = json.loads(capsys.readouterr().out)["precision"]
    assert printed["asked"] == "int8"
    assert printed["calibration_images"] == len(asked[0].calibration) == 3
    judged = {probe.image.tobytes() for probe in asked[0].probes}
    seen = {probe.image.tobytes() for probe in asked[0].calibration}
    assert len(judged) == 3
    assert not judged & seen


@pytest.mark.usefixtures("rtx")
def test_a_wrong_architecture(place: Path, tmp_path: Path, capsys: Any):
    more = ("--format", "tensorrt", "--gpu-arch", "sm12")
    code, said = fails(capsys, *arguments(place, tmp_path / "b", *more))
    assert code == 2
    assert "can't build for SM12: take some of" in said
    assert "SM89" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "extra"), [((), r"[tensorrt]"), (("--gpu-arch", "sm89"), "[tensorrt-rtx]")]
)
def test_a_missing_package(
    place: Path,
    tmp_path: Path,
    capsys: Any,
    *,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    extra: str,
):
    import_module = importlib.import_module

    def without_tensorrt(name: str, package: str | None = None) -> Any:
        if name in MODULES:
            raise ImportError(name)
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", without_tensorrt)
    words = arguments(place, tmp_path / "b", "--format", "tensorrt", *more)
    code, said = fails(capsys, *words)
    assert code == 1
    assert f'pip install "hwsearch{extra}"' in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("no folder")
    elsewhere = ("--workspace", tmp_path / "work")
    code, said = fails(capsys, *arguments(place, tmp_path / "file" / "b", *elsewhere))
    assert code == 1
    assert "name another place" in said

    def refuse(**_: object) -> str:  # root may write anywhere, so permissions would prove nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(place_module.tempfile, "mkdtemp", refuse)
    code, said = fails(capsys, *arguments(place, tmp_path / "b"))
    assert code == 1
    assert "Nothing can be written to" in said
    assert "Permission denied" in said


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("more", [("--format", "tensorrt", "--gpu-arch", "sm89"), ()])
def test_a_broken_model(
    place: Path,
    tmp_path: Path,
    capsys: Any,
    *,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
):
    """A file that is damaged after the gate: TensorRT's parser is asked without a build too."""
    check = bundle_module.check_operators

    def damaging(path: Path) -> None:
        check(path)
        path.write_bytes(b"nothing of use")

    monkeypatch.setattr(bundle_module, "check_operators", damaging)
    code, said = fails(capsys, *arguments(place, tmp_path / "b", *more))
    assert code == 1
    assert "TensorRT can't parse" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("rtx", "ctrl_c")
def test_ctrl_c_in_a_build_leaves_nothing(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    build = bundle_module.build_engines

    def interrupted(*given: Any, **more: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return build(*given, **more)

    monkeypatch.setattr(bundle_module, "build_engines", interrupted)
    more = ("--format", "tensorrt", "--gpu-arch", "sm89")
    code, said = fails(capsys, *arguments(place, tmp_path / "b", *more))
    assert code == 130
    assert "Stopped; nothing was written to" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--precision", "fp8"], "no precision 'fp8' for engines: take fp32, fp16, bf16, int8"),
        (["--precision", "fp16"], "give --data"),
        (["--gpu-arch", "sm89"], "--gpu-arch is for engines: add --format tensorrt"),
        (["--engine-workspace", "2GiB"], "--engine-workspace is for engines"),
        (["--format", "tensorrt", "--engine-workspace", "much"], "'much' is no amount of memory"),
        (["--format", "coreml"], "no format 'coreml'"),
        (["--study", "x"], "Say which subnet to export"),
    ],
)
def test_what_is_wrong_with_the_arguments(
    place: Path, tmp_path: Path, capsys: Any, more: list[str], said: str
):
    code, sentence = fails(capsys, *arguments(place, tmp_path / "b", *more))
    assert code == 2
    assert said in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_study_knows_its_data(tmp_path: Path, capsys: Any):
    code, said = fails(
        capsys, "export", "--study", "x", "--out", tmp_path / "b", "--data", "scenes"
    )
    assert code == 2
    assert "leave --data and --framing out" in said


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
