"""Graphs in fp16 and bf16: strongly typed, cast at the borders alone, and close to fp32."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from tiny import MIXED, tiny_supernet

from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_export import export_decoder, export_encoder, save_model
from hwsearch.runtime.onnx_precision import blocks_of, converted, lowered, nodes_of
from hwsearch.runtime.onnx_rounding import rounding_replica
from hwsearch.runtime.onnx_types import element_types
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner

LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# Rounding to 11 and to 8 bits, through a few layers.
TOLERANCE = {"fp16": 0.01, "bf16": 0.08}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("fp32") / "encoder.onnx"
    return onnx.load(export_encoder(tiny_supernet().extract(MIXED), path))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("fp32") / "decoder.onnx"
    return onnx.load(export_decoder(tiny_supernet().extract(MIXED), path))


def run(model: onnx.ModelProto, path: Path, inputs: dict[str, np.ndarray]):
    with OnnxRuntimeRunner(save_model(model, path), threads=1) as runner:
        return runner.infer(inputs)


def casts(model: onnx.ModelProto):
    return [node for node in model.graph.node if node.op_type == "Cast"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_all_but_what_is_kept_is_low(encoder: onnx.ModelProto, precision: str):
    norms = nodes_of(encoder.graph, "norms")
    assert len(norms) == 2 * len(MIXED.layers) + 2
    if precision == "bf16":
        norms |= nodes_of(encoder.graph, "convolutions")
    model = lowered(encoder, precision, keep=norms)
    types = element_types(model)
    for node in model.graph.node:
        if node.op_type != "Cast":
            wanted = TensorProto.FLOAT if node.name in norms else LOW[precision]
            assert types[node.output[0]] in (wanted, TensorProto.INT64), node.name
    onnx.checker.check_model(model, full_check=True)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [value.name for value in model.graph.output] == ["image_embeddings"]
    assert model.metadata_props == encoder.metadata_props
    stored = {weight.data_type for weight in model.graph.initializer}
    assert stored == {TensorProto.FLOAT, LOW[precision], TensorProto.INT64}


def test_a_value_is_cast_once_and_only_at_a_border(encoder: onnx.ModelProto):
    kept = nodes_of(encoder.graph, "norms", "attention")
    model = lowered(encoder, "fp16", keep=kept)
    sources = Counter(node.input[0] for node in casts(model))
    assert set(sources.values()) == {1}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in casts(model):
        assert makers.get(node.input[0], node).op_type != "Cast" or node.input[0] not in makers


def test_a_kept_block_is_left_as_it_was(encoder: onnx.ModelProto):
    blocks = blocks_of(encoder.graph)
    assert list(blocks) == ["patch_embed", "blocks.0", "blocks.1", "blocks.2", "neck"]
    model = lowered(encoder, "fp16", keep=blocks["blocks.1"])
    original = {node.name: node for node in encoder.graph.node}
    kept = [node for node in model.graph.node if node.name in blocks["blocks.1"]]
    assert len(kept) == len(blocks["blocks.1"])
    entries = [
        name
        for node in kept
        for name, before in zip(node.input, original[node.name].input, strict=True)
        if name != before
    ]
    assert set(entries) == {f"{entries[0]}"}, "one value enters the block, cast once"


def test_keeping_all_changes_nothing(encoder: onnx.ModelProto):
    everything = [node.name for node in encoder.graph.node]
    model = lowered(encoder, "bf16", keep=everything)
    assert list(model.graph.node) == list(encoder.graph.node)
    assert {w.name: w for w in model.graph.initializer} == {
        w.name: w for w in encoder.graph.initializer
    }


def test_keeping_a_node_that_is_not_there_is_refused(encoder: onnx.ModelProto):
    with pytest.raises(ExportError, match=r"no node '/blocks\.7/Add'"):
        lowered(encoder, "fp16", keep=["/blocks.7/Add"])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_results_are_close_but_not_equal(
    encoder: onnx.ModelProto, decoder: onnx.ModelProto, precision: str, tmp_path: Path
):
    rng = np.random.default_rng(0)
    image = {"image": rng.standard_normal((2, 3, 112, 112), np.float32)}
    (want,) = run(encoder, tmp_path / "e.onnx", image).values()
    low = rounding_replica(lowered(encoder, precision))
    (got,) = run(low, tmp_path / "l.onnx", image).values()
    assert 1e-5 < np.linalg.norm(got - want) / np.linalg.norm(want) < TOLERANCE[precision]

    prompts = {
        "image_embeddings": want[:1],
        "point_coords": rng.uniform(0, 112, (3, 2, 2)).astype(np.float32),
        "point_labels": np.tile(np.array([2, 3], np.float32), (3, 1)),
    }
    want_masks = run(decoder, tmp_path / "d.onnx", prompts)["low_res_masks"]
    kept = nodes_of(decoder.graph, "prompts")
    low = rounding_replica(lowered(decoder, precision, keep=kept))
    got_masks = run(low, tmp_path / "l.onnx", prompts)["low_res_masks"]
    distance = np.linalg.norm(got_masks - want_masks) / np.linalg.norm(want_masks)
    assert 1e-5 < distance < TOLERANCE[precision]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_are_rounded_to_nearest(precision: str):
    values = torch.tensor([1 / 3, -1e-6, 7e4, 0.0])
    weight = onnx.numpy_helper.from_array(values.numpy(), "w")
    low = onnx.numpy_helper.to_array(converted(weight, LOW[precision], "w2"))
    expected = values.to(torch.float16 if precision == "fp16" else torch.bfloat16).float()
    assert low.astype(np.float32).tolist() == expected.tolist()
    assert np.isinf(low.astype(np.float32)[2]) == (precision == "fp16")


def test_attention_leaves_its_projections_out(encoder: onnx.ModelProto, decoder: onnx.ModelProto):
    for graph in (encoder.graph, decoder.graph):
        names = nodes_of(graph, "attention")
        operators = Counter(node.op_type for node in graph.node if node.name in names)
        everywhere = Counter(node.op_type for node in graph.node)
        assert operators["Softmax"] == everywhere["Softmax"] > 0
        assert not any("proj/" in name or "/qkv/" in name for name in names)
    # pixel coordinates are in the prompt encoder, and all of it counts
    prompts = nodes_of(decoder.graph, "prompts")
    assert {node.op_type for node in decoder.graph.node if node.name in prompts} >= {"Sin", "Cos"}
    assert not nodes_of(encoder.graph, "prompts")
