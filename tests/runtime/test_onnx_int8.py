"""The int8 encoder: what of it is int8, what is not, and what its file says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from segment_anything.modeling import Sam
from tiny import MIXED, tiny_supernet

from hwsearch.errors import ExportError
from hwsearch.runtime import onnx_int8
from hwsearch.runtime.onnx_export import export_encoder, read_metadata
from hwsearch.runtime.onnx_int8 import export_encoder_int8, weight_products


@pytest.fixture(scope="module")
def sam() -> Sam:
    return tiny_supernet(seed=1).extract(MIXED)


@pytest.fixture(scope="module")
def quantised(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_encoder_int8(sam, tmp_path_factory.mktemp("int8") / "encoder.onnx", name="x/y")


def test_all_matrices_are_int8_and_nothing_else_is(sam: Sam, quantised: Path, tmp_path: Path):
    plain = onnx.load(export_encoder(sam, tmp_path / "plain.onnx")).graph
    graph = onnx.load(quantised).graph
    products = 4 * len(MIXED.layers) + 1  # qkv, proj, lin1, lin2 of each layer, and the neck's
    counts = Counter(node.op_type for node in graph.node)
    before = Counter(node.op_type for node in plain.node)
    assert counts["MatMulInteger"] == len(weight_products(plain)) == products
    assert counts["MatMul"] == before["MatMul"] - products
    assert counts["Conv"] == before["Conv"]
    int8 = [weight for weight in graph.initializer if weight.data_type == TensorProto.INT8]
    assert sum(len(weight.dims) == 2 for weight in int8) == products
    assert not any(len(weight.dims) == 3 for weight in int8)


def test_names_and_shapes_are_those_of_the_fp32_file(sam: Sam, quantised: Path, tmp_path: Path):
    plain = onnx.load(export_encoder(sam, tmp_path / "plain.onnx")).graph
    graph = onnx.load(quantised).graph
    assert list(graph.input) == list(plain.input)
    assert list(graph.output) == list(plain.output)


def test_the_file_says_that_it_is_int8(quantised: Path):
    facts = read_metadata(quantised)
    assert facts["precision"] == "int8"
    assert facts["model"] == "x/y"
    assert facts["resolution"] == str(MIXED.resolution)


def test_quantising_prints_nothing_and_leaves_one_file(
    sam: Sam, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    path = export_encoder_int8(sam, tmp_path / "encoder.onnx")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_sentence(sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_int8, "quantize_dynamic", fail)
    with pytest.raises(ExportError, match=r"encoder\.onnx could not be written: No space left"):
        export_encoder_int8(sam, tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())
