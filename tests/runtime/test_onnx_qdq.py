"""int8 between QuantizeLinear and DequantizeLinear: symmetric, and of constant matrices alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny import MIXED, tiny_supernet

from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_export import export_encoder, save_model
from hwsearch.runtime.onnx_int8 import weight_products
from hwsearch.runtime.onnx_precision import lowered, nodes_of
from hwsearch.runtime.onnx_qdq import quantized
from hwsearch.runtime.onnx_types import element_types
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("qdq")
    return export_encoder(tiny_supernet().extract(MIXED), folder / "encoder.onnx")


def readings(count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    shape = (1, 3, 112, 112)
    return [{"image": rng.standard_normal(shape, np.float32)} for _ in range(count)]


@pytest.fixture(scope="module")
def model(path: Path):
    products = weight_products(onnx.load(path).graph)
    return quantized(path, products=products, readings=readings())


def test_all_scales_are_symmetric_and_weights_have_one_a_column(model: onnx.ModelProto):
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert nodes
    for node in nodes:
        assert not weights[node.input[2]].any(), node.name
        assert weights[node.input[2]].dtype == np.int8
    columns = 0
    for node in nodes:
        if node.input[0] in weights:
            matrix, scale = weights[node.input[0]], weights[node.input[1]]
            assert (matrix.dtype, matrix.ndim) == (np.int8, 2)
            assert scale.shape == (matrix.shape[1],)
            assert np.abs(matrix).max(axis=0).min() == 127
            columns += 1
    assert columns == len(MIXED.layers) * 4 + 1


def test_biases_and_results_are_not_quantised(path: Path, model: onnx.ModelProto):
    products = weight_products(onnx.load(path).graph)
    dequantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    quantised = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "Add":
            assert not dequantised & set(node.input), node.name
        if node.name in products:
            assert set(node.input) <= dequantised
            assert node.output[0] not in quantised
        elif node.op_type in ("MatMul", "Conv"):
            assert not dequantised & set(node.input), node.name


def test_results_are_near_fp32(path: Path, model: onnx.ModelProto, tmp_path: Path):
    inputs = readings(4)[3]
    with OnnxRuntimeRunner(path, threads=1) as runner:
        (want,) = runner.infer(inputs).values()
    with OnnxRuntimeRunner(save_model(model, tmp_path / "q.onnx"), threads=1) as runner:
        (got,) = runner.infer(inputs).values()
    assert 1e-4 < np.linalg.norm(got - want) / np.linalg.norm(want) < 0.1


def test_the_rest_can_be_fp16(model: onnx.ModelProto):
    low = lowered(model, "fp16", keep=nodes_of(model.graph, "norms"))
    types = element_types(low)
    for node in low.graph.node:
        if node.op_type == "DequantizeLinear":
            assert types[node.output[0]] == TensorProto.FLOAT16
        if node.op_type == "QuantizeLinear":
            assert types[node.input[0]] == types[node.input[1]] == TensorProto.FLOAT16
            assert types[node.output[0]] == TensorProto.INT8
    onnx.checker.check_model(low, full_check=True)


def test_without_images_or_products_it_is_a_sentence(path: Path):
    products = weight_products(onnx.load(path).graph)
    with pytest.raises(ExportError, match="can't be quantised to int8: there are no images"):
        quantized(path, products=products, readings=[])
    with pytest.raises(ExportError, match="no matrix product"):
        quantized(path, products=[], readings=readings())
    assert [file.name for file in path.parent.iterdir()] == ["encoder.onnx"]
