"""From an ONNX file to the engine of a target: built once, of one shape, in the worker."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny import MIXED, tiny_supernet

from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import Target
from hwsearch.runtime import tensorrt_open
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.open import open_runner
from hwsearch.runtime.tensorrt import TensorRT, load_tensorrt
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
    """The profiles of each build that was asked for."""
    asked: list[dict[str, Any]] = []

    def build(onnx_path: Path, engine_path: Path, *, profiles: Any, trt: TensorRT) -> None:
        asked.append(profiles)
        engine_path.write_bytes(b"plan")

    monkeypatch.setattr(tensorrt_open, "build_engine", build)
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
    engine_of(TARGET, copy(folder, tmp_path), trt=FAKE)
    shape = (2, 3, MIXED.resolution, MIXED.resolution)
    assert builds == [{"image": (shape, shape, shape)}]


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


def test_the_engine_builds_for_real(folder: Path, tmp_path: Path):
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    trt = load_tensorrt(prefer="tensorrt-rtx")
    engine = engine_of(TARGET, copy(folder, tmp_path), trt=trt)
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
