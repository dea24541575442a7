"""From an ONNX file to the engine of a target: built once, of one shape, in the worker."""

import threading
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny import MIXED, tiny_supernet

from hwsearch.errors import DeviceError, ExportError, UsageError
from hwsearch.records import Target
from hwsearch.runtime import tensorrt_build, tensorrt_open
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.open import open_runner
from hwsearch.runtime.tensorrt import TensorRT, build_engine, load_tensorrt
from hwsearch.runtime.tensorrt_info import EngineInfo, onnx_sha256, sidecar_path
from hwsearch.runtime.tensorrt_open import engine_of, fixed_shapes

TARGET = Target(
    device="cuda:0",
    device_name="NVIDIA L4",
    runtime="tensorrt-rtx",
    runtime_version="1.7.1.116",
    batch=2,
)
FAKE = TensorRT(module=None, flavour="tensorrt-rtx", version="1.7.1.116")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    sam = tiny_supernet().extract(MIXED)
    export_encoder(sam, folder / "encoder.onnx")
    export_decoder(sam, folder / "decoder.onnx")
    return folder


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each build was asked for, by name."""
    asked: list[dict[str, Any]] = []

    def build(onnx_path: Path, engine_path: Path, *, trt: TensorRT, **more: Any) -> EngineInfo:
        asked.append(more)
        engine_path.write_bytes(b"plan")
        info = EngineInfo(
            file=engine_path.name,
            flavour=trt.flavour,
            version=trt.version,
            onnx_sha256=onnx_sha256(onnx_path),
            profiles={},
            gpu_archs=(),
        )
        sidecar_path(engine_path).write_text(info.model_dump_json())
        return info

    monkeypatch.setattr(
        tensorrt_open, "build_engine", create_autospec(build_engine, side_effect=build)
    )
    return asked


def copy(folder: Path, to: Path) -> Path:
    path = to / "encoder.onnx"
    path.write_bytes((folder / "encoder.onnx").read_bytes())
    return path


def test_shapes_are_a_batch_of_images_and_one_box(folder: Path):
    side = MIXED.resolution
    assert fixed_shapes(folder / "encoder.onnx", batch=2) == {"image": (2, 3, side, side)}
    assert fixed_shapes(folder / "decoder.onnx", batch=2) == {
        "point_coords": (1, 2, 2),
        "point_labels": (1, 2),
    }


def test_an_engine_has_the_one_shape_that_is_timed(
    folder: Path, tmp_path: Path, builds: list[dict[str, Any]]
):
    path = copy(folder, tmp_path)
    engine_of(TARGET, path, trt=FAKE)
    shape = (2, 3, MIXED.resolution, MIXED.resolution)
    assert builds == [
        {
            "profiles": {"image": (shape, shape, shape)},
            "device": 0,
            "timing_cache": path.with_name("timing-NVIDIA-L4-1.7.1.116.cache"),
        }
    ]


def test_an_engine_is_built_on_the_gpu_of_the_target(
    folder: Path, tmp_path: Path, builds: list[dict[str, Any]]
):
    second = TARGET.model_copy(update={"device": "cuda:1"})
    engine_of(second, copy(folder, tmp_path), trt=FAKE)
    assert [build["device"] for build in builds] == [1]


@pytest.mark.parametrize("fault", ["no description", "another engine"])
def test_an_engine_that_is_not_intact_is_built_again(
    folder: Path, tmp_path: Path, builds: list[dict[str, Any]], fault: str
):
    path = copy(folder, tmp_path)
    engine = engine_of(TARGET, path, trt=FAKE)
    sidecar = sidecar_path(engine)
    if fault == "no description":
        sidecar.unlink()
    else:
        info = EngineInfo.from_json(sidecar.read_bytes())
        sidecar.write_text(info.model_copy(update={"engine_sha256": "0" * 64}).model_dump_json())
    assert engine_of(TARGET, path, trt=FAKE) == engine
    assert len(builds) == 2


def test_an_engine_that_is_not_the_one_described_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tensorrt_open, "load_tensorrt", lambda **_: FAKE)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    engine = tmp_path / "encoder.engine"
    engine.write_bytes(b"plan")
    with pytest.raises(ExportError, match=r"encoder\.engine\.json is missing"):
        open_runner(TARGET, engine)


def test_an_engine_is_built_once(folder: Path, tmp_path: Path, builds: list[dict[str, Any]]):
    path = copy(folder, tmp_path)
    first = engine_of(TARGET, path, trt=FAKE)
    path.touch()
    assert engine_of(TARGET, path, trt=FAKE) == first
    assert len(builds) == 1


@pytest.mark.parametrize("change", ["onnx", "gpu", "version", "batch"])
def test_an_engine_of_other_conditions_is_not_taken(
    folder: Path, tmp_path: Path, builds: list[dict[str, Any]], change: str
):
    path = copy(folder, tmp_path)
    first = engine_of(TARGET, path, trt=FAKE)
    target, trt = TARGET, FAKE
    if change == "onnx":
        path.write_bytes((folder / "decoder.onnx").read_bytes())
    elif change == "gpu":
        target = TARGET.model_copy(update={"device_name": "NVIDIA T4"})
    elif change == "version":
        trt = TensorRT(module=None, flavour="tensorrt-rtx", version="1.8")
    else:
        target = TARGET.model_copy(update={"batch": 1})
    second = engine_of(target, path, trt=trt)
    assert second != first
    assert len(builds) == 2
    assert not first.exists(), "engines that nothing will open stay on the disk"
    assert second.exists()


def test_a_file_that_is_no_onnx_is_a_sentence(tmp_path: Path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(b"\x08nothing")
    with pytest.raises(DeviceError, match=r"cut\.onnx is no ONNX file"):
        fixed_shapes(path, batch=1)


def test_open_dimensions_of_another_model_are_named(tmp_path: Path):
    path = tmp_path / "other.onnx"
    sizes = ["n", 3]
    value = helper.make_tensor_value_info("audio", TensorProto.FLOAT, sizes)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)
    node = helper.make_node("Relu", ["audio"], ["y"])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [value], [result])), path)
    with pytest.raises(UsageError, match=r"'audio' of .*other\.onnx has open dimensions"):
        fixed_shapes(path, batch=1)


def watch_builder(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which builders are made."""
    threads: list[int] = []
    make = tensorrt_build.new_builder

    def watched(*given: Any) -> Any:
        threads.append(threading.get_ident())
        return make(*given)

    monkeypatch.setattr(tensorrt_build, "new_builder", watched)
    return threads


def test_the_engine_builds_for_real(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    trt = load_tensorrt(prefer="tensorrt-rtx")
    chosen: dict[int, int] = {}  # thread → GPU
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda index: chosen.update({threading.get_ident(): index})
    )
    logged_in = watch_builder(monkeypatch)
    second = TARGET.model_copy(update={"device": "cuda:1"})
    engine = engine_of(second, copy(folder, tmp_path), trt=trt)
    assert logged_in
    assert all(chosen.get(thread) == 1 for thread in logged_in), "built on another GPU"
    assert engine.stat().st_size > 10_000


def test_without_a_gpu_opening_is_a_sentence(folder: Path, tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    with pytest.raises(DeviceError, match=r"cuda:0 can't be used: \w+"):
        open_runner(TARGET, copy(folder, tmp_path))
    with pytest.raises(DeviceError, match=r"no model file .*gone\.onnx"):
        open_runner(TARGET, tmp_path / "gone.onnx")
