"""TensorRT-RTX parses and builds every precision: the demo's subnets, and a block as in ViT-B."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import randomised_sam

import hwsearch
from hwsearch.export.ladder import products_of
from hwsearch.records import SamGeometry
from hwsearch.runtime.onnx_export import export_decoder, export_encoder, save_model
from hwsearch.runtime.onnx_precision import lowered, nodes_of
from hwsearch.runtime.onnx_qdq import quantized
from hwsearch.runtime.tensorrt import TensorRT, build_engine, load_tensorrt, parse_fault

# A windowed block as ViT-B has twelve of them, at a quarter of its resolution: windows of 14
# patches, padded at the edge.
VIT_B_BLOCK = SamGeometry(
    model="custom",
    image_size=256,
    patch_size=16,
    embed_dim=768,
    depth=1,
    heads=12,
    mlp_width=3072,
    window_size=14,
    global_layers=(),
    prompt_dim=256,
    decoder_mlp_width=2048,
)
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8+fp16")


@dataclass(frozen=True)
class Exported:
    """An encoder and a decoder in fp32, and the resolution of the encoder."""

    folder: Path
    side: int


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    return load_tensorrt(prefer="tensorrt-rtx")


@pytest.fixture(scope="module", params=["demo", "vit_b block"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    if request.param == "demo":
        supernet = hwsearch.load_supernet("demo")
        sam = supernet.extract(supernet.space.smallest)
    else:
        sam = randomised_sam(0, VIT_B_BLOCK)
    folder = tmp_path_factory.mktemp("exported")
    export_encoder(sam, folder / "encoder.onnx")
    export_decoder(sam, folder / "decoder.onnx")
    return Exported(folder, sam.image_encoder.img_size)


def inputs(part: str, side: int, channels: int) -> Iterator[dict[str, np.ndarray]]:
    rng, grid = np.random.default_rng(0), side // 16
    if part == "encoder":
        yield {"image": rng.standard_normal((1, 3, side, side), np.float32)}
    else:
        yield {
            "image_embeddings": rng.standard_normal((1, channels, grid, grid), np.float32),
            "point_coords": rng.uniform(0, side, (2, 2, 2)).astype(np.float32),
            "point_labels": np.tile(np.array([2, 3], np.float32), (2, 1)),
        }


def channels_of(model: onnx.ModelProto) -> int:
    """Of the image embeddings, which an encoder gives and a decoder takes."""
    values = (*model.graph.input, *model.graph.output)
    named = {value.name: value.type.tensor_type.shape.dim for value in values}
    return int(named["image_embeddings"][1].dim_value)


def profiles(part: str, side: int):
    if part == "encoder":
        return {"image": ((1, 3, side, side),) * 3}
    return {
        "point_coords": ((1, 1, 2), (1, 2, 2), (16, 4, 2)),
        "point_labels": ((1, 1), (1, 2), (16, 4)),
    }


def in_precision(path: Path, precision: str, side: int) -> onnx.ModelProto:
    model = onnx.load(path)
    if precision.startswith("int8"):
        products = products_of(model.graph)
        model = quantized(
            path, products=products, readings=inputs(path.stem, side, channels_of(model))
        )
    if precision in ("fp32", "int8"):
        return model
    always = ("prompts", "convolutions") if precision == "bf16" else ("prompts",)
    half = "bf16" if precision == "bf16" else "fp16"
    return lowered(model, half, keep=nodes_of(model.graph, *always, "norms"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_it_is_parsed_and_built(
    rtx: TensorRT, exported: Exported, part: str, precision: str, tmp_path: Path
):
    source = exported.folder / f"{part}.onnx"
    model = in_precision(source, precision, exported.side)
    path = save_model(model, tmp_path / f"{part}.onnx")
    assert parse_fault(path, trt=rtx) is None
    build_engine(
        path,
        tmp_path / f"{part}.engine",
        profiles=profiles(part, exported.side),
        trt=rtx,
        gpu_archs=("SM89",),
    )
    stored = (tmp_path / f"{part}.engine").stat().st_size
    if part == "encoder" and precision in ("fp16", "bf16"):
        # half of the weights' bytes, so the engine really is of that precision
        assert stored < 0.75 * source.stat().st_size + 2e6


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_attention_and_whole_blocks_can_stay_in_fp32(
    rtx: TensorRT, exported: Exported, precision: str, tmp_path: Path
):
    for part in ("encoder", "decoder"):
        model = onnx.load(exported.folder / f"{part}.onnx")
        always = ("prompts", "convolutions", "norms", "attention")
        first = [node.name for node in model.graph.node if "layers.0/" in node.name]
        kept = nodes_of(model.graph, *always, "residuals").union(first)
        path = save_model(lowered(model, precision, keep=kept), tmp_path / f"{part}.onnx")
        assert parse_fault(path, trt=rtx) is None


def test_bf16_needs_its_transposed_convolutions_in_fp32(
    rtx: TensorRT, exported: Exported, tmp_path: Path
):
    """When this fails, TensorRT-RTX builds them, and the ladder need not keep them any more."""
    from hwsearch.errors import ExportError

    model = onnx.load(exported.folder / "decoder.onnx")
    low = lowered(model, "bf16", keep=nodes_of(model.graph, "prompts"))
    path = save_model(low, tmp_path / "decoder.onnx")
    with pytest.raises(ExportError, match=r"at node '.*ConvTranspose.*' \(ConvTranspose\)"):
        build_engine(
            path,
            tmp_path / "decoder.engine",
            profiles=profiles("decoder", exported.side),
            trt=rtx,
            gpu_archs=("SM89",),
        )
