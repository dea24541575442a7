"""A bundle is whole or not there, and says all about itself."""

import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import onnx
import pytest
import torch
from safetensors.torch import load_file
from segment_anything.modeling import Sam
from tiny import GEOMETRY, MIXED, SUBNETS

from hwsearch.errors import ExportError, UsageError
from hwsearch.export import bundle as bundle_module
from hwsearch.export import engines
from hwsearch.export.bundle import stage_bundle, write_bundle
from hwsearch.export.engines import EngineOptions
from hwsearch.export.manifest import check_files, digest_file, read_manifest
from hwsearch.export.place import check_place
from hwsearch.progress import Progress
from hwsearch.records import Accuracy, Measurement, SubnetConfig, Target
from hwsearch.runtime.tensorrt import (
    EngineInfo,
    Shape,
    ShapeRange,
    TensorRT,
    build_engine,
    check_profiles,
    onnx_sha256,
)

NAMES = ["decoder.onnx", "encoder.onnx", "manifest.json", "subnet.json", "weights.safetensors"]
ACCURACY = Accuracy(
    miou=0.5,
    miou_oracle=0.6,
    instances=4,
    images=2,
    data="leaves",
    split="test",
    framing="image",
)


def latency_of(subnet: SubnetConfig) -> Measurement:
    target = Target(
        device="cpu", device_name="Test CPU", runtime="onnxruntime", runtime_version="1"
    )
    return Measurement(
        supernet_id="custom-1",
        subnet_id=subnet.id,
        subnet=subnet,
        target=target,
        session_id="s",
        encoder_ms=3,
        decoder_ms=1,
    )


def names(folder: Path):
    return sorted(path.name for path in folder.iterdir())


def test_staged_files_can_be_timed_and_then_are_sealed(sam: Sam, tmp_path: Path):
    out = tmp_path / "new" / "bundle"
    with stage_bundle(out, sam=sam, geometry=GEOMETRY, subnet=MIXED) as staged:
        assert not out.exists()
        timed = digest_file(staged.encoder), digest_file(staged.decoder)
        sealed = staged.seal(
            accuracy=ACCURACY, latency=latency_of(MIXED), provenance={"study": "s", "trial": 3}
        )
    assert sealed == out
    assert names(out.parent) == ["bundle"]
    assert names(out) == NAMES
    manifest = read_manifest(out)
    check_files(out, manifest, digests=True)
    assert (manifest.files["encoder.onnx"], manifest.files["decoder.onnx"]) == timed
    assert sorted(manifest.files) == [name for name in NAMES if name != "manifest.json"]
    assert manifest.latency == latency_of(MIXED)
    assert manifest.accuracy == ACCURACY
    assert manifest.provenance == {"study": "s", "trial": 3}
    assert (manifest.geometry, manifest.subnet) == (GEOMETRY, MIXED)
    assert manifest.preprocessing.resolution == 112
    assert manifest.preprocessing.pixel_mean == (123.675, 116.28, 103.53)
    assert manifest.parity.mask_iou_mean > 0.99
    assert {"hwsearch", "torch", "onnxruntime", "python"} <= set(manifest.versions)


def test_the_bundle_holds_the_subnet_and_its_weights(sam: Sam, tmp_path: Path):
    out = write_bundle(tmp_path / "bundle", sam=sam, geometry=GEOMETRY, subnet=MIXED)
    assert SubnetConfig.from_json((out / "subnet.json").read_text()) == MIXED
    weights = load_file(out / "weights.safetensors")
    state = sam.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)


def test_what_is_not_sealed_leaves_nothing(sam: Sam, tmp_path: Path):
    with stage_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED) as staged:
        assert staged.encoder.is_file()
    assert names(tmp_path) == []
    with (
        pytest.raises(KeyboardInterrupt),
        stage_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED),
    ):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_an_export_that_fails_the_gate_leaves_nothing(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    export_encoder = bundle_module.export_encoder

    def export_wrongly(model: Sam, path: Path, *, name: str) -> Path:
        with torch.no_grad():
            model.image_encoder.neck[0].weight[0] += 1
        written = export_encoder(model, path, name=name)
        with torch.no_grad():
            model.image_encoder.neck[0].weight[0] -= 1
        return written

    monkeypatch.setattr(bundle_module, "export_encoder", export_wrongly)
    with pytest.raises(ExportError, match="cosine"):
        write_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED)
    assert names(tmp_path) == []


def test_a_bundle_is_replaced(sam: Sam, tmp_path: Path):
    out = write_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED)
    (out / "stale.txt").write_text("from before")
    write_bundle(out, sam=sam, geometry=GEOMETRY, subnet=MIXED, accuracy=ACCURACY)
    assert names(tmp_path) == ["b"]
    assert names(out) == NAMES
    assert read_manifest(out).accuracy == ACCURACY


def test_an_empty_directory_is_taken(sam: Sam, tmp_path: Path):
    (tmp_path / "b").mkdir()
    write_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED)
    assert names(tmp_path / "b") == NAMES


@pytest.mark.parametrize("manifest", [None, "{}", json.dumps({"name": "a web app"})])
def test_a_directory_that_is_no_bundle_is_left_alone(
    sam: Sam, tmp_path: Path, manifest: str | None
):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    before = names(out)
    with pytest.raises(UsageError, match="is there already and is no bundle"):
        write_bundle(out, sam=sam, geometry=GEOMETRY, subnet=MIXED)
    assert names(out) == before
    assert names(tmp_path) == ["thesis"]


def test_the_folder_that_a_command_runs_in_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path(".."), tmp_path):
        with pytest.raises(UsageError, match="name another place"):
            check_place(place)
    check_place(Path("new"))


def test_a_file_is_left_alone(sam: Sam, tmp_path: Path):
    (tmp_path / "b").write_text("mine")
    with pytest.raises(UsageError, match="is no bundle"):
        write_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED)
    assert (tmp_path / "b").read_text() == "mine"


def test_the_old_bundle_comes_back_if_the_new_one_can_not_be_placed(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = write_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED)
    before = read_manifest(out)
    replace = Path.replace

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self.is_dir() and (self / "manifest.json").exists() and self.name != "b":
            raise OSError(13, "Permission denied")
        return replace(self, target)

    with stage_bundle(out, sam=sam, geometry=GEOMETRY, subnet=MIXED) as staged:
        monkeypatch.setattr(Path, "replace", fail_for_the_new)
        with pytest.raises(ExportError, match="could not be written: Permission denied"):
            staged.seal(accuracy=ACCURACY)
    assert names(tmp_path) == ["b"]
    assert read_manifest(out) == before


@pytest.mark.parametrize("name", ["largest", "resolution", "width"])
def test_a_model_that_is_not_the_subnet_is_refused(sam: Sam, tmp_path: Path, name: str):
    with pytest.raises(UsageError, match=r"is not the subnet .*supernet\.extract"):
        write_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=SUBNETS[name])


def test_the_latency_of_another_subnet_is_refused(sam: Sam, tmp_path: Path):
    with (
        stage_bundle(tmp_path / "b", sam=sam, geometry=GEOMETRY, subnet=MIXED) as staged,
        pytest.raises(UsageError, match="The latency is of subnet"),
    ):
        staged.seal(latency=latency_of(SUBNETS["largest"]))
    assert names(tmp_path) == []


def test_engines_travel_in_the_bundle(sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """tests/runtime builds engines for real; here the profiles have to fit the files."""

    def build(
        onnx_path: Path,
        engine_path: Path,
        *,
        profiles: dict[str, tuple[Shape, Shape, Shape]],
        trt: TensorRT,
        device: int | None,
        gpu_archs: tuple[str, ...],
        workspace_bytes: int | None,
        timing_cache: Path | None,
        progress: Progress,
    ) -> EngineInfo:
        graph = onnx.load(onnx_path).graph
        ranges = {
            name: ShapeRange(min=low, opt=mid, max=high)
            for name, (low, mid, high) in profiles.items()
        }
        check_profiles({value.name: shape_of(value) for value in graph.input}, ranges)
        engine_path.write_bytes(b"engine")
        return EngineInfo(
            file=engine_path.name,
            flavour=trt.flavour,
            version=trt.version,
            onnx_sha256=onnx_sha256(onnx_path),
            profiles=ranges,
            gpu_archs=gpu_archs,
        )

    monkeypatch.setattr(engines, "build_engine", create_autospec(build_engine, side_effect=build))
    archs = SimpleNamespace(__members__={"SM89": 0})
    trt = TensorRT(
        module=SimpleNamespace(ComputeCapability=archs), flavour="tensorrt-rtx", version="1.7.1"
    )
    out = write_bundle(
        tmp_path / "b",
        sam=sam,
        geometry=GEOMETRY,
        subnet=MIXED,
        engines=EngineOptions(
            trt=trt, gpu_archs=("SM89",), batch=2, max_batch=3, max_prompts=4, max_points=3
        ),
    )
    manifest = read_manifest(out)
    assert names(out) == sorted([*NAMES, "encoder.engine", "decoder.engine"])
    assert {"encoder.engine", "decoder.engine"} <= set(manifest.files)
    encoder, decoder = manifest.engines
    assert (encoder.file, decoder.file) == ("encoder.engine", "decoder.engine")
    assert encoder.gpu_archs == decoder.gpu_archs == ("SM89",)
    assert encoder.profiles["image"] == ShapeRange(
        min=(1, 3, 112, 112), opt=(2, 3, 112, 112), max=(3, 3, 112, 112)
    )
    assert decoder.profiles["point_coords"].max == (4, 3, 2)
    assert decoder.profiles["point_labels"].min == (1, 1)
    assert decoder.onnx_sha256 == onnx_sha256(out / "decoder.onnx")


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """A size of 0 in the file is a free dimension, -1 for TensorRT."""
    return tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"batch": 2}, {"max_prompts": 0}, {"max_points": 1}]
)
def test_engines_that_could_run_nothing_are_refused(
    sam: Sam, tmp_path: Path, options: dict[str, int]
):
    with pytest.raises(UsageError, match="can't be built"):
        write_bundle(
            tmp_path / "b",
            sam=sam,
            geometry=GEOMETRY,
            subnet=MIXED,
            engines=EngineOptions(**options),
        )
    assert names(tmp_path) == []
