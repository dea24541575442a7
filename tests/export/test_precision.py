"""The ladder: the first step that passes the gate is taken, and all of it is written down."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from segment_anything.modeling import Sam
from tiny import MIXED, tiny_supernet

from hwsearch.errors import ExportError, UsageError
from hwsearch.export import precision as precision_module
from hwsearch.export.compare import ParityLimits
from hwsearch.export.gate import Probe
from hwsearch.export.ladder import _worst_first
from hwsearch.export.manifest import PrecisionPlan
from hwsearch.export.parity import drawn_images, preprocessing_of
from hwsearch.export.precision import PrecisionOptions, choose_precision
from hwsearch.runtime.onnx_export import export_decoder, export_encoder, read_metadata
from hwsearch.runtime.onnx_types import element_types

PROBES = [Probe(image) for image in drawn_images(seed=3)]
CALIBRATION = [Probe(image) for image in drawn_images(4, seed=4)]
# Wide enough for a model of random weights, whose masks hang by a thread.
LIMITS = ParityLimits(embedding_cosine_min=0.97, mask_iou_mean=0.9, iou_prediction_max_error=2.0)
NOTHING_PASSES = ParityLimits(mask_iou_mean=1.1)


@pytest.fixture
def choose(tmp_path: Path) -> Callable[..., PrecisionPlan]:
    def run(sam: Sam, precision: str, limits: ParityLimits = LIMITS) -> PrecisionPlan:
        export_encoder(sam, tmp_path / "encoder.onnx")
        export_decoder(sam, tmp_path / "decoder.onnx")
        options = PrecisionOptions(
            precision=precision, probes=PROBES, calibration=CALIBRATION, limits=limits
        )
        return choose_precision(tmp_path, how=preprocessing_of(sam), options=options)

    return run


def sam_of(seed: int = 2) -> Sam:
    return tiny_supernet(seed=seed).extract(MIXED)


@pytest.mark.parametrize(("precision", "step"), [("fp16", "fp16"), ("bf16", "bf16")])
def test_what_passes_at_once_is_taken(choose, tmp_path: Path, precision: str, step: str):
    plan = choose(sam_of(), precision)
    assert (plan.asked, plan.encoder.step, plan.decoder.step) == (precision, step, step)
    assert plan.encoder.file == f"encoder.{precision}.onnx"
    assert plan.encoder.fp32_nodes == {"fp16": 0, "bf16": 2}[precision], "the convolutions"
    assert plan.encoder.low_nodes > 100
    assert plan.decoder.fp32_nodes > 0, "the coordinates"
    assert [attempt.passed for attempt in plan.encoder.attempts] == [True]
    assert plan.parity == plan.decoder.attempts[-1].parity
    assert plan.parity.images == len(PROBES)
    assert 0.9 <= plan.parity.mask_iou_mean < 1
    assert "ONNX Runtime" in plan.judge
    assert "no GPU" in plan.judge
    assert PrecisionPlan.from_json(plan.to_json()) == plan
    names = {path.name for path in tmp_path.iterdir()}
    files = {
        f"{part}{kind}.onnx" for part in ("encoder", "decoder") for kind in ("", f".{precision}")
    }
    assert names == files
    assert read_metadata(tmp_path / plan.encoder.file)["precision"] == step
    small, large = (
        (tmp_path / name).stat().st_size for name in (plan.encoder.file, "encoder.onnx")
    )
    assert small < {"fp16": 0.7, "bf16": 0.9}[precision] * large


def test_int8_is_calibrated_and_the_rest_is_fp16(choose, tmp_path: Path):
    plan = choose(sam_of(), "int8", ParityLimits(0.5, 0.5, 9.0))
    assert plan.encoder.step == "int8, the rest fp16, norms fp32"
    assert plan.encoder.int8_products == len(MIXED.layers) * 4 + 1
    assert plan.encoder.fp32_nodes == len(MIXED.layers) * 2 + 2
    assert plan.calibration_images == len(CALIBRATION)
    kinds = {
        weight.data_type for weight in onnx.load(tmp_path / "encoder.int8.onnx").graph.initializer
    }
    assert {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16} <= kinds


def test_the_ladder_ends_with_fp32(choose, tmp_path: Path):
    plan = choose(sam_of(), "int8", NOTHING_PASSES)
    for part, name in ((plan.encoder, "encoder.onnx"), (plan.decoder, "decoder.onnx")):
        assert part.file == name
        assert part.step == "fp32"
        assert [attempt.step for attempt in part.attempts][:5] == [
            "int8, the rest fp16, norms fp32",
            "int8 in MLPs alone, the rest fp16, norms fp32",
            "fp16",
            "fp16, norms fp32",
            "fp16, norms and attention fp32",
        ]
        assert len(part.attempts) == 8
        assert not any(attempt.passed for attempt in part.attempts)
        assert part.low_nodes == 0
        # each step keeps to fp32 at least as well as the second before it, on the whole
        assert part.attempts[-1].parity.mask_iou_mean == 1
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.onnx", "decoder.onnx"}


def test_a_block_that_overflows_is_kept_in_fp32(choose, tmp_path: Path):
    """Values of 10⁵ in the MLP of layer 1, which a later matrix scales down again."""
    sam = sam_of()
    with torch.no_grad():
        mlp = sam.image_encoder.blocks[1].mlp
        mlp.lin1.weight *= 3e5
        mlp.lin1.bias *= 3e5
        mlp.lin2.weight /= 3e5
    plan = choose(sam, "fp16")
    first = plan.encoder.attempts[0]
    assert first.parity is None
    assert not first.passed
    assert "blocks.1" in plan.encoder.fp32_blocks
    assert "blocks fp32" in plan.encoder.step
    assert plan.encoder.low_nodes > 0
    types = element_types(onnx.load(tmp_path / plan.encoder.file))
    assert types["/blocks.1/mlp/lin1/MatMul"] == onnx.TensorProto.FLOAT
    assert types["/blocks.0/mlp/lin1/MatMul"] == onnx.TensorProto.FLOAT16
    assert plan.decoder.step == "fp16", "the decoder is chosen apart"


def test_bf16_has_room_for_what_overflows_fp16(choose):
    sam = sam_of()
    with torch.no_grad():
        mlp = sam.image_encoder.blocks[1].mlp
        mlp.lin1.weight *= 3e5
        mlp.lin1.bias *= 3e5
        mlp.lin2.weight /= 3e5
    assert choose(sam, "bf16").encoder.attempts[0].parity is not None


def test_blocks_are_ranked_by_how_much_they_add():
    inf = float("inf")
    assert _worst_first(list("abcd"), [0.1, 0.5, 0.55, inf]) == ["d", "b", "a", "c"]
    assert _worst_first(list("abc"), [0.1, inf, inf])[0] == "b"


def test_boxes_of_objects_are_the_prompts(choose, tmp_path: Path):
    sam = sam_of()
    export_encoder(sam, tmp_path / "encoder.onnx")
    export_decoder(sam, tmp_path / "decoder.onnx")
    import numpy as np

    boxes = np.array([[10, 10, 90, 120], [30, 40, 200, 200], [0, 0, 50, 50]], np.float32)
    options = PrecisionOptions(
        precision="fp16", probes=[Probe(PROBES[0].image, boxes)], limits=LIMITS
    )
    plan = choose_precision(tmp_path, how=preprocessing_of(sam), options=options)
    assert plan.parity.prompts == 3 * len(boxes)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_without_images_nothing_is_judged(choose, tmp_path: Path, precision: str):
    sam = sam_of()
    probes = PROBES if precision == "int8" else []
    options = PrecisionOptions(precision=precision, probes=probes)
    with pytest.raises(UsageError, match=f"{precision} is judged on images"):
        choose_precision(tmp_path, how=preprocessing_of(sam), options=options)


def test_a_conversion_that_fails_leaves_no_files(
    choose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise ExportError("no")

    monkeypatch.setattr(precision_module, "quantized", fail)
    with pytest.raises(ExportError, match="no"):
        choose(sam_of(), "int8")
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.onnx", "decoder.onnx"}
