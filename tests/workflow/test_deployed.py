"""Accuracy in the precision that is deployed: that of the very files, in their runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SUBNETS, Pictures, corner_piece, picture, rectangle

from hwsearch.errors import DeviceError
from hwsearch.evaluation import EvaluationSet, SamSegmenter, evaluate, evaluate_segmenter
from hwsearch.evaluation.sets import evaluation_set
from hwsearch.export.bundle import stage_bundle
from hwsearch.export.load import load_bundle
from hwsearch.records import Target
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.bundle_segmenter import open_segmenter
from hwsearch.workflow.deployed import (
    OnePromptAtATime,
    deployed_accuracy,
    open_deployed,
    open_judged,
)

SUBNET = SUBNETS["mixed"]


def cpu(precision: str) -> Target:
    return Target(
        device="cpu",
        device_name="a CPU",
        runtime="onnxruntime",
        runtime_version="1",
        precision=precision,
    )


@pytest.fixture
def chosen() -> EvaluationSet:
    shape = (96, 128)
    masks = [
        [rectangle(shape, 8, 8, 60, 70), corner_piece(shape, 70, 20, 48)],
        [rectangle(shape, 40, 30, 90, 80)],
    ]
    samples = [picture(found, key=str(place)) for place, found in enumerate(masks)]
    return evaluation_set(Pictures(samples), framing="image")


def test_fp32_is_judged_as_the_model_itself(supernet: Supernet, chosen: EvaluationSet):
    judge = deployed_accuracy(supernet, chosen, [cpu("fp32")])
    assert judge(SUBNET) == evaluate(supernet.extract(SUBNET), chosen).miou


def test_the_model_is_judged_where_it_is_asked_for(supernet: Supernet, chosen: EvaluationSet):
    """torch's `meta` device computes shapes alone, and stands for any other."""
    elsewhere = torch.device("meta")
    image = chosen.views[0].image[: SUBNET.resolution, : SUBNET.resolution]
    with open_judged(supernet, SUBNET, cpu("fp32"), device=elsewhere) as segmenter:
        assert segmenter.encode([image]).device == elsewhere
    with open_judged(supernet, SUBNET, cpu("int8"), device=elsewhere) as segmenter:
        assert segmenter.encode([image]).device.type == "cpu", "files run in their runtime"
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        deployed_accuracy(supernet, chosen, [cpu("fp32")], device=elsewhere)(SUBNET)


def test_a_gpu_whose_memory_is_too_small_is_one_sentence(supernet: Supernet):
    with (
        pytest.raises(DeviceError, match="fewer --workers"),
        open_judged(supernet, SUBNET, cpu("fp32")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


def test_int8_is_judged_on_its_own_files(supernet: Supernet, chosen: EvaluationSet):
    with open_deployed(supernet, SUBNET, cpu("int8")) as segmenter:
        expected = evaluate_segmenter(segmenter, chosen).miou
        exact = SamSegmenter(supernet.extract(SUBNET))
        images = [view.image for view in chosen.views]
        fitted = [image[: SUBNET.resolution, : SUBNET.resolution] for image in images]
        with torch.inference_mode():
            lowered, plain = segmenter.encode(fitted[:1]), exact.encode(fitted[:1])
    assert not torch.equal(lowered, plain)
    assert torch.nn.functional.cosine_similarity(lowered, plain).min() > 0.9
    assert deployed_accuracy(supernet, chosen, [cpu("int8")])(SUBNET) == expected


def test_of_several_targets_the_least_accuracy_counts(supernet: Supernet, chosen: EvaluationSet):
    each = [deployed_accuracy(supernet, chosen, [cpu(name)])(SUBNET) for name in ("fp32", "int8")]
    both = deployed_accuracy(supernet, chosen, [cpu("fp32"), cpu("int8")])
    assert both(SUBNET) == min(each)


def test_prompts_one_at_a_time_give_what_all_at_once_do(supernet: Supernet, chosen: EvaluationSet):
    inner = SamSegmenter(supernet.extract(SUBNET))
    one_by_one = OnePromptAtATime(inner)
    all_at_once = evaluate_segmenter(inner, chosen)
    assert evaluate_segmenter(one_by_one, chosen).miou == pytest.approx(all_at_once.miou, abs=1e-4)


def test_a_bundle_can_hold_the_int8_encoder_that_was_searched(
    supernet: Supernet, chosen: EvaluationSet, tmp_path: Path
):
    """What a loader opens is the encoder that the figures belong to, and it is no other's."""
    with stage_bundle(
        tmp_path / "bundle",
        sam=supernet.extract(SUBNET),
        geometry=supernet.geometry,
        subnet=SUBNET,
        dynamic_int8=True,
    ) as staged:
        assert staged.encoder.name == "encoder-int8.onnx"
        bundle = staged.seal()
    with open_segmenter(bundle, threads=1) as (manifest, segmenter):
        assert manifest.encoder_file in manifest.files
        found = evaluate_segmenter(segmenter, chosen).miou
    assert found == deployed_accuracy(supernet, chosen, [cpu("int8")])(SUBNET)
    image = chosen.views[0].image
    with load_bundle(bundle, threads=1) as loaded:
        loaded.set_image(image)
        lowered = loaded.get_image_embedding()
    (bundle / "encoder-int8.onnx").unlink()
    assert np.isfinite(lowered).all()
    with pytest.raises(Exception, match="lacks encoder-int8"):
        load_bundle(bundle, threads=1)
