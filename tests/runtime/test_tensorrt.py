"""TensorRT's build half: for real with TensorRT-RTX, which needs no GPU to build."""

import ast
import importlib
import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
import pytest
from onnx import TensorProto, helper
from tiny import MIXED, tiny_supernet

from hwsearch.errors import DeviceError, ExportError, UsageError
from hwsearch.progress import Advance
from hwsearch.runtime import tensorrt, tensorrt_build, tensorrt_log
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.tensorrt import TensorRT, build_engine, load_tensorrt, parse_fault
from hwsearch.runtime.tensorrt_info import (
    ShapeRange,
    check_profiles,
    onnx_sha256,
    read_engine_info,
    sidecar_path,
)

FAKE = TensorRT(module=SimpleNamespace(), flavour="tensorrt", version="10.16.1")
DECODER_PROFILES = {
    "point_coords": ((1, 1, 2), (1, 2, 2), (8, 4, 2)),
    "point_labels": ((1, 1), (1, 2), (8, 4)),
}


class WatchedProgress:
    """Adds up how far each task came."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}
        self.notes: list[str] = []

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        assert total == 1
        self.done[description] = 0

        def advance(amount: float = 1, note: str = "") -> None:
            assert amount >= 0
            self.done[description] += amount
            self.notes.append(note)

        yield advance

    def log(self, message: str) -> None:
        raise AssertionError(message)


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    return load_tensorrt(prefer="tensorrt-rtx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """The exported encoder and decoder of a subnet with padded windows."""
    folder = tmp_path_factory.mktemp("onnx")
    sam = tiny_supernet().extract(MIXED)
    export_encoder(sam, folder / "encoder.onnx")
    export_decoder(sam, folder / "decoder.onnx")
    return folder


def write_model(path: Path, nodes: list[onnx.NodeProto], shape: list[int | str]):
    source = helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)
    results = [
        helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes
    ]
    graph = helper.make_graph(nodes, "g", [source], results)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path
    )
    return path


def test_the_encoder_builds_with_a_free_batch(rtx: TensorRT, folder: Path, tmp_path: Path):
    watched = WatchedProgress()
    shapes = ((1, 3, 112, 112), (1, 3, 112, 112), (4, 3, 112, 112))
    info = build_engine(
        folder / "encoder.onnx",
        tmp_path / "encoder.engine",
        profiles={"image": shapes},
        trt=rtx,
        gpu_archs=("SM89",),
        workspace_bytes=1 << 30,
        progress=watched,
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["encoder.engine", "encoder.engine.json"]
    weights = (folder / "encoder.onnx").stat().st_size
    assert (tmp_path / "encoder.engine").stat().st_size > weights / 2
    assert info.file == "encoder.engine"
    assert (info.flavour, info.version) == ("tensorrt-rtx", rtx.version)
    assert info.profiles == {"image": ShapeRange(min=shapes[0], opt=shapes[1], max=shapes[2])}
    assert info.gpu_archs == ("SM89",)
    assert info.onnx_sha256 == onnx_sha256(folder / "encoder.onnx")
    assert info.onnx_file == "encoder.onnx"
    assert (info.workspace_bytes, info.timing_cache) == (1 << 30, False)
    assert read_engine_info(tmp_path / "encoder.engine") == info
    assert watched.done == {"Building encoder.engine": pytest.approx(1)}
    assert any(watched.notes)


def test_the_decoder_builds_with_free_prompts_and_points(
    rtx: TensorRT, folder: Path, tmp_path: Path
):
    path = tmp_path / "decoder.engine"
    build_engine(folder / "decoder.onnx", path, profiles=DECODER_PROFILES, trt=rtx)
    assert path.stat().st_size > 0


def test_every_parser_error_is_told_with_its_node(rtx: TensorRT, tmp_path: Path):
    nodes = [helper.make_node("Det", ["a"], [name], name=f"node-{name}") for name in ("x", "y")]
    path = write_model(tmp_path / "unknown.onnx", nodes, [2, 3, 3])
    with pytest.raises(ExportError) as caught:
        build_engine(path, tmp_path / "unknown.engine", profiles={}, trt=rtx)
    message = str(caught.value)
    assert all(part in message for part in ("unknown.onnx", "node-x", "node-y", "Det"))
    assert "\n" not in message


def test_a_damaged_file_is_a_sentence(rtx: TensorRT, tmp_path: Path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"nothing of use")
    with pytest.raises(ExportError, match=r"can't parse .*damaged\.onnx: .*\w"):
        build_engine(path, tmp_path / "damaged.engine", profiles={}, trt=rtx)


def test_a_failed_build_tells_the_reason_and_leaves_the_old_engine(rtx: TensorRT, tmp_path: Path):
    # Six to twelve numbers can't become ten; that shows when the shapes are known, in the build.
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2, 5])
    nodes = [
        helper.make_node("Constant", [], ["s"], value=shape),
        helper.make_node("Reshape", ["a", "s"], ["x"], name="change of shape"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 5])],
    )
    path = tmp_path / "reshape.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path
    )
    engine = tmp_path / "reshape.engine"
    engine.write_bytes(b"old")
    said = r"can't build .*reshape\.onnx at node 'change of shape' \(Reshape\): .*[Rr]eshape"
    with pytest.raises(ExportError, match=said):
        build_engine(path, engine, profiles={"a": ((2, 3), (3, 3), (4, 3))}, trt=rtx)
    assert engine.read_bytes() == b"old"
    assert not sidecar_path(engine).exists()


class StopsMidway(WatchedProgress):
    """Does something once the builder is in its first phases."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act: Callable[[], None] | None = act

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        with super().task(description, total) as advance:

            def moved(amount: float = 1, note: str = "") -> None:
                advance(amount, note)
                if self.act and len(self.notes) == 5:
                    act, self.act = self.act, None
                    act()

            yield moved


def test_another_thread_can_stop_a_build(rtx: TensorRT, folder: Path, tmp_path: Path):
    stop = threading.Event()
    with pytest.raises(ExportError, match=r"build of decoder\.onnx was stopped; nothing was"):
        build_engine(
            folder / "decoder.onnx",
            tmp_path / "decoder.engine",
            profiles=DECODER_PROFILES,
            trt=rtx,
            progress=StopsMidway(stop.set),
            stop=stop,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_a_build(rtx: TensorRT, folder: Path, tmp_path: Path):
    before = set(threading.enumerate())
    progress = StopsMidway(lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        build_engine(
            folder / "decoder.onnx",
            tmp_path / "decoder.engine",
            profiles=DECODER_PROFILES,
            trt=rtx,
            progress=progress,
        )
    assert list(tmp_path.iterdir()) == []
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) == before, "the build goes on"
    # and the next build is none the worse for it, and has more phases to go through
    whole = WatchedProgress()
    build_engine(
        folder / "decoder.onnx",
        tmp_path / "d.engine",
        profiles=DECODER_PROFILES,
        trt=rtx,
        progress=whole,
    )
    assert len(progress.notes) < len(whole.notes)


def test_a_place_that_can_not_be_written_is_a_sentence(rtx: TensorRT, folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ExportError, match=r"x\.engine could not be written \(.+\): name another"):
        build_engine(
            folder / "decoder.onnx",
            tmp_path / "file" / "x.engine",
            profiles=DECODER_PROFILES,
            trt=rtx,
        )


def test_an_engine_that_is_not_the_one_described_is_refused(
    rtx: TensorRT, folder: Path, tmp_path: Path
):
    engine = tmp_path / "d.engine"
    with pytest.raises(ExportError, match=r"description d\.engine\.json is missing"):
        read_engine_info(engine)
    build_engine(folder / "decoder.onnx", engine, profiles=DECODER_PROFILES, trt=rtx)
    with engine.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ExportError, match="SHA-256 differs"):
        read_engine_info(engine)
    sidecar_path(engine).write_text("{}")
    with pytest.raises(ExportError, match="is damaged"):
        read_engine_info(engine)


def test_a_description_that_can_not_be_written_leaves_no_engine(
    rtx: TensorRT, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The engine before it had a description, which may not come to stand beside the new one."""
    engine = tmp_path / "d.engine"
    sidecar_path(engine).write_text("of an earlier engine")

    def refuse(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorrt, "write_text", refuse)
    with pytest.raises(ExportError, match=r"d\.engine could not be written \(No space left"):
        build_engine(folder / "decoder.onnx", engine, profiles=DECODER_PROFILES, trt=rtx)
    assert list(tmp_path.iterdir()) == []


def test_the_parser_alone_says_what_it_refuses(rtx: TensorRT, folder: Path, tmp_path: Path):
    assert parse_fault(folder / "encoder.onnx", trt=rtx) is None
    nodes = [helper.make_node("Det", ["a"], ["x"], name="node-x")]
    fault = parse_fault(write_model(tmp_path / "det.onnx", nodes, [2, 3, 3]), trt=rtx)
    assert fault is not None
    assert "node-x" in fault


def test_an_unknown_architecture_names_those_there_are(rtx: TensorRT, folder: Path):
    with pytest.raises(UsageError, match=r"can't build for SM1: take some of .*SM89"):
        build_engine(
            folder / "decoder.onnx",
            folder / "x.engine",
            profiles=DECODER_PROFILES,
            trt=rtx,
            gpu_archs=("SM89", "SM1"),
        )


def test_only_tensorrt_rtx_builds_for_other_gpus(folder: Path):
    with pytest.raises(UsageError, match="this machine only"):
        build_engine(
            folder / "decoder.onnx",
            folder / "x.engine",
            profiles=DECODER_PROFILES,
            trt=FAKE,
            gpu_archs=("SM89",),
        )


def test_a_missing_model_is_a_sentence(tmp_path: Path):
    with pytest.raises(ExportError, match=r"no ONNX file .*nothing\.onnx"):
        build_engine(tmp_path / "nothing.onnx", tmp_path / "x.engine", profiles={}, trt=FAKE)


def test_no_gpu_is_a_sentence(folder: Path, tmp_path: Path):
    class Logger:
        ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"

        def log(self, severity: str, message: str) -> None: ...

    def refuse(logger: Logger) -> None:
        logger.log("warning", "not told")
        logger.log("error", "CUDA initialization\n failure with error: 35.")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = ModuleType("without_gpu")
    module.__dict__.update(ILogger=Logger, IProgressMonitor=object, Builder=refuse)
    trt = TensorRT(module=module, flavour="tensorrt", version="10.16.1")
    with pytest.raises(DeviceError, match=r"here: CUDA initialization failure with error: 35\.$"):
        build_engine(
            folder / "decoder.onnx", tmp_path / "x.engine", profiles=DECODER_PROFILES, trt=trt
        )


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 2), (1, 2), (1, 2, 2)),
        ((2, 2), (1, 2), (4, 2)),
        ((1, 2), (8, 2), (4, 2)),
        ((0, 2), (1, 2), (4, 2)),
    ],
)
def test_shapes_that_do_not_ascend_are_refused(shapes: tuple[tuple[int, ...], ...]):
    with pytest.raises(UsageError, match="input 'points' have to be of one length, positive"):
        build_engine(Path("a.onnx"), Path("a.engine"), profiles={"points": shapes}, trt=FAKE)


@pytest.mark.parametrize(
    ("profiles", "fault"),
    [
        ({"pionts": (4, 2)}, "no input 'pionts': its inputs are image, points"),
        ({"points": (4, 3)}, r"'points' can't have the shape \(4, 3\): the model takes any×2"),
        ({"points": (4,)}, r"'points' can't have the shape \(4,\)"),
        ({"points": (4, 2), "image": (1, 16)}, "'image' can't have"),
        ({}, "'points' has the free shape any×2"),
    ],
)
def test_profiles_are_held_against_the_inputs(profiles: dict[str, tuple[int, ...]], fault: str):
    asked = {name: ShapeRange(min=size, opt=size, max=size) for name, size in profiles.items()}
    with pytest.raises(UsageError, match=fault):
        check_profiles({"image": (1, 8), "points": (-1, 2)}, asked)


def test_good_profiles_pass():
    asked = {"points": ShapeRange(min=(1, 2), opt=(2, 2), max=(9, 2))}
    check_profiles({"image": (1, 8), "points": (-1, 2)}, asked)


def test_the_digest_covers_weights_beside_the_graph(tmp_path: Path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"graph")
    alone = onnx_sha256(path)
    (tmp_path / "a.onnx.data").write_bytes(b"weights")
    with_weights = onnx_sha256(path)
    (tmp_path / "a.onnx.data").write_bytes(b"others")
    assert len({alone, with_weights, onnx_sha256(path)}) == 3


class TestLoading:
    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch):
        """Versions of the importable modules, by name."""
        versions: dict[str, str] = {}

        def import_module(name: str) -> ModuleType:
            if name not in versions:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if versions[name] == "broken":
                raise ImportError("libnvinfer.so.11: cannot open shared object file")
            module = ModuleType(name)
            module.__dict__["__version__"] = versions[name]
            return module

        monkeypatch.setattr(importlib, "import_module", import_module)
        return versions

    def test_tensorrt_comes_before_tensorrt_rtx(self, installed: dict[str, str]):
        installed.update(tensorrt="11.4.0.106", tensorrt_rtx_bindings="1.7.1")
        assert load_tensorrt().flavour == "tensorrt"
        assert load_tensorrt(prefer="tensorrt-rtx").version == "1.7.1"

    def test_tensorrt_rtx_stands_in(self, installed: dict[str, str]):
        installed.update(tensorrt_rtx_bindings="1.7.1")
        assert load_tensorrt().flavour == "tensorrt-rtx"
        with pytest.raises(DeviceError, match=r'^tensorrt is not.* "hwsearch\[tensorrt\]"\.$'):
            load_tensorrt(prefer="tensorrt")

    @pytest.mark.usefixtures("installed")
    def test_without_either_both_extras_are_named(self):
        with pytest.raises(DeviceError, match=r"\[tensorrt\].*\[tensorrt-rtx\]"):
            load_tensorrt()

    def test_a_broken_installation_is_not_called_missing(self, installed: dict[str, str]):
        installed.update(tensorrt="broken")
        for prefer in (None, "tensorrt"):
            with pytest.raises(DeviceError, match=r"^tensorrt \(libnvinfer.*can't be imported"):
                load_tensorrt(prefer=prefer)
        installed.update(tensorrt_rtx_bindings="1.7.1")
        assert load_tensorrt().flavour == "tensorrt-rtx", "another one stands in"

    @pytest.mark.parametrize(("version", "good"), [("10.8.0.43", False), ("10.13.3.9", True)])
    def test_the_oldest_version(self, installed: dict[str, str], version: str, good: bool):
        installed.update(tensorrt=version)
        if good:
            assert load_tensorrt().version == version
        else:
            with pytest.raises(DeviceError, match=r"TensorRT 10\.8\.0\.43 is too old: 10\.13"):
                load_tensorrt()


def attribute_chains(module: ModuleType) -> set[str]:
    """Each `trt.X.Y` of a module's source, as "X.Y"."""
    chains = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute):
            parts, root = [node.attr], node.value
            while isinstance(root, ast.Attribute):
                parts.insert(0, root.attr)
                root = root.value
            if isinstance(root, ast.Name) and root.id == "trt":
                chains.add(".".join(parts))
    return chains


def test_only_api_that_exists_is_used(rtx: TensorRT):
    # `trt` names the module in the build functions, and the TensorRT record around it elsewhere.
    modules = (tensorrt, tensorrt_build, tensorrt_log)
    chains = set().union(*map(attribute_chains, modules))
    of_the_module = {chain for chain in chains if chain[0].isupper()}
    assert "NetworkDefinitionCreationFlag.STRONGLY_TYPED" in of_the_module
    for chain in of_the_module:
        found: object = rtx.module
        for part in chain.split("."):
            assert hasattr(found, part), chain
            found = getattr(found, part)
    # Weak typing is gone from TensorRT 11 on.
    assert not {chain for chain in of_the_module if chain.startswith("BuilderFlag")}
