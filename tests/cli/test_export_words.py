"""What `hwsearch export` says of a bundle's latency and engines."""

from pathlib import Path

import pytest
from tiny import GEOMETRY, MIXED

from hwsearch.cli.export import _lines
from hwsearch.export.manifest import (
    ENCODER_FILE,
    INT8_ENCODER_FILE,
    BundleManifest,
    EngineParity,
    Parity,
    Preprocessing,
)
from hwsearch.records import Measurement, Target
from hwsearch.runtime.tensorrt_info import BuildMachine, EngineInfo, Flavour

ENGINE = EngineInfo(
    file="encoder.engine",
    flavour="tensorrt",
    version="10.13.3",
    onnx_sha256="0" * 64,
    profiles={},
    gpu_archs=(),
    machine=BuildMachine(gpu="NVIDIA L4", compute_capability="8.9", cuda="12.8", driver=None),
)

PARITY = Parity(
    embedding_cosine_min=1,
    embedding_max_abs_error=0,
    mask_iou_min=0.9,
    mask_iou_mean=0.99,
    iou_prediction_max_error=0,
    images=1,
    prompts=1,
)


def latency_on(device: str, runtime: str) -> Measurement:
    return Measurement(
        supernet_id="custom-1",
        subnet_id=MIXED.id,
        subnet=MIXED,
        target=Target(device=device, device_name="x", runtime=runtime, runtime_version="1"),
        session_id="s",
        encoder_ms=3,
        decoder_ms=1,
    )


def said(
    latency: Measurement | None,
    *engines: EngineInfo,
    judged: EngineParity | None = None,
    encoder_file: str = ENCODER_FILE,
) -> str:
    manifest = BundleManifest(
        created="2026-01-01",
        geometry=GEOMETRY,
        subnet=MIXED,
        preprocessing=Preprocessing(
            resolution=112, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1), mask_threshold=0
        ),
        files={},
        parity=PARITY,
        engine_parity=judged,
        latency=latency,
        encoder_file=encoder_file,
        engines=engines,
        versions={},
    )
    return "\n".join(_lines(Path("b"), manifest, 5.0))


def test_a_latency_of_engines_is_said_to_be_theirs():
    words = said(latency_on("cuda:0", "tensorrt"), ENGINE, ENGINE)
    assert "4.00 ms measured on the engines, 20.0% under the target of 5 ms" in words
    assert "for NVIDIA L4; they were timed, and their masks were not looked at." in words


def test_engines_that_a_gpu_judged_are_said_to_be_near_fp32():
    words = said(None, ENGINE, ENGINE, judged=EngineParity(gpu="NVIDIA L4", parity=PARITY))
    assert "for NVIDIA L4; on NVIDIA L4 their mask IoU with fp32 is 0.9900." in words


def test_a_gpu_times_engines_of_a_bundle_that_has_none():
    words = said(latency_on("cuda:0", "tensorrt"))
    assert "measured on tensorrt's engines of the fp32 files," in words


def test_a_latency_in_int8_is_said_to_be_of_those_files():
    words = said(latency_on("cpu", "onnxruntime"), encoder_file=INT8_ENCODER_FILE)
    assert f"measured on {INT8_ENCODER_FILE} and decoder.onnx," in words


@pytest.mark.parametrize("latency", [latency_on("cpu", "onnxruntime"), None])
def test_engines_that_nothing_ran_are_said_to_be_such(latency: Measurement | None):
    words = said(latency, ENGINE, ENGINE)
    assert ("measured on the fp32 files," in words) == (latency is not None)
    assert "for NVIDIA L4; they were not run." in words


@pytest.mark.parametrize(
    ("flavour", "archs", "gpus"),
    [
        ("tensorrt-rtx", (), "for its default set of GPUs, Ampere and later;"),
        ("tensorrt-rtx", ("SM86", "SM89"), "for SM86, SM89;"),
        ("tensorrt", (), "for this machine's GPU;"),
    ],
)
def test_the_gpus_of_engines(flavour: Flavour, archs: tuple[str, ...], gpus: str):
    engine = ENGINE.model_copy(update={"flavour": flavour, "gpu_archs": archs, "machine": None})
    assert gpus in said(None, engine)
