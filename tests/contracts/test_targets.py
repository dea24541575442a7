"""One suite for every target on the CPU: a subnet's own files, from the model to its outputs."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from segment_anything.modeling import Sam
from tiny import MIXED, random_images, tiny_supernet

from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import Target
from hwsearch.runtime.hardware import logical_cores
from hwsearch.runtime.model_files import export_decoder_for, export_encoder_for, model_suffix
from hwsearch.runtime.open import open_runner
from hwsearch.runtime.runner import Runner, TensorSpec
from hwsearch.sam import decode

BATCH = 2
SIDE, GRID, CHANNELS = MIXED.resolution, MIXED.resolution // 16, 32


@dataclass(frozen=True)
class Case:
    """A target, and how near its outputs come to torch's: share of the largest value, cosine."""

    runtime: str
    precision: str
    error: float
    cosine: float
    library: str

    @property
    def target(self) -> Target:
        return Target(
            device="cpu",
            device_name="Test CPU",
            runtime=self.runtime,
            runtime_version="1",
            precision=self.precision,
            threads=1,
            batch=BATCH,
        )


CASES = [
    Case("onnxruntime", "fp32", 2e-5, 0.999999, "ONNX Runtime"),
    Case("onnxruntime", "int8", 0.2, 0.98, "ONNX Runtime"),
    Case("openvino", "fp32", 2e-5, 0.999999, "OpenVINO"),
    Case("openvino", "bf16", 0.2, 0.98, "OpenVINO"),
    Case("torch", "fp32", 0, 0.999999, "torch"),
]


@dataclass(frozen=True)
class Exported:
    """A case and its files."""

    case: Case
    sam: Sam
    encoder: Path
    decoder: Path

    def open(self, path: Path, *, threads: int = 1) -> Runner:
        return open_runner(self.case.target.model_copy(update={"threads": threads}), path)


@functools.cache
def model() -> Sam:
    return tiny_supernet(seed=1).extract(MIXED)


@functools.cache
def expected() -> np.ndarray:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the runners: another number adds up in another order
    try:
        with torch.inference_mode():
            return model().image_encoder(random_images(SIDE, count=BATCH)).numpy()
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.runtime}-{case.precision}")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    case: Case = request.param
    if case.runtime == "openvino":
        skip_without_openvino(case.precision)
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{part}{model_suffix(case.target)}" for part in ("encoder", "decoder")]
    export_encoder_for(case.target, model(), paths[0], name="subnet")
    export_decoder_for(case.target, model(), paths[1], name="subnet")
    return Exported(case, model(), *paths)


@pytest.fixture(scope="module")
def encoder(exported: Exported) -> Iterator[Runner]:
    with exported.open(exported.encoder) as runner:
        yield runner


@pytest.fixture(scope="module")
def decoder(exported: Exported) -> Iterator[Runner]:
    with exported.open(exported.decoder) as runner:
        yield runner


def skip_without_openvino(precision: str) -> None:
    if not importlib.util.find_spec("openvino"):
        pytest.skip("the openvino extra is not installed")
    from hwsearch.runtime.openvino import cpu_capabilities

    if precision.upper() not in cpu_capabilities():
        pytest.skip(f"this CPU has no {precision}")


def images(count: int = BATCH) -> dict[str, np.ndarray]:
    return {"image": random_images(SIDE, count=count).numpy()}


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_the_encoder_says_what_it_wants_and_gives(exported: Exported, encoder: Runner) -> None:
    inputs, outputs = encoder.inputs, encoder.outputs
    batch = BATCH if exported.case.runtime == "torch" else None
    assert inputs == (TensorSpec("image", (batch, 3, SIDE, SIDE), "float32"),)
    shape = (batch, CHANNELS, GRID, GRID)
    assert outputs == (TensorSpec("image_embeddings", shape, "float32"),)


def test_the_decoder_says_what_it_wants_and_gives(exported: Exported, decoder: Runner) -> None:
    inputs, outputs = decoder.inputs, decoder.outputs
    prompts, points = (1, 2) if exported.case.runtime == "torch" else (None, None)
    assert inputs == (
        TensorSpec("image_embeddings", (1, CHANNELS, GRID, GRID), "float32"),
        TensorSpec("point_coords", (prompts, points, 2), "float32"),
        TensorSpec("point_labels", (prompts, points), "float32"),
    )
    assert outputs == (
        TensorSpec("low_res_masks", (prompts, 4, 4 * GRID, 4 * GRID), "float32"),
        TensorSpec("iou_predictions", (prompts, 4), "float32"),
    )


def test_embeddings_are_those_of_torch_as_far_as_the_precision_goes(
    exported: Exported, encoder: Runner
) -> None:
    got = encoder.infer(images())["image_embeddings"]
    want, case = expected(), exported.case
    assert got.shape == want.shape
    assert got.dtype == np.float32
    error = np.abs(got - want).max() / np.abs(want).max()
    assert error <= case.error
    assert cosine(got, want) >= case.cosine
    if case.precision != "fp32":
        assert error > 1e-4, "this is what fp32 gives"


def test_masks_are_those_of_torch(exported: Exported, decoder: Runner) -> None:
    embeddings = expected()[:1]
    coords = np.array([[[20, 30], [80, 100]]], np.float32)
    labels = np.array([[2, 3]], np.float32)
    with torch.inference_mode():
        want, want_ious = decode(
            exported.sam,
            torch.from_numpy(embeddings),
            torch.from_numpy(coords)[None],
            torch.from_numpy(labels)[None],
        )
    prompt = {"image_embeddings": embeddings, "point_coords": coords, "point_labels": labels}
    got = decoder.infer(prompt)
    exact = exported.case.precision != "bf16"  # int8 is the encoder's; the decoder stays fp32
    for name, value in (("low_res_masks", want[0]), ("iou_predictions", want_ious[0])):
        reference = value.numpy()
        error = np.abs(got[name] - reference).max() / np.abs(reference).max()
        assert error <= (5e-5 if exact else exported.case.error), name


def test_a_batch_is_its_images_one_by_one(exported: Exported, encoder: Runner) -> None:
    together = encoder.infer(images())["image_embeddings"]
    if exported.case.runtime == "torch":  # its files have the target's batch
        with pytest.raises(UsageError, match=rf"\(1, 3, {SIDE}, {SIDE}\).*\({BATCH}, 3"):
            encoder.infer(images(1))
        return
    alone = encoder.infer(images(1))["image_embeddings"]
    # int8's scales are of a whole batch, so that its images change each other a little
    assert cosine(together[:1], alone) >= exported.case.cosine


def test_time_gives_one_latency_a_run(encoder: Runner) -> None:
    seconds = encoder.time(images(), 3)
    assert seconds.shape == (3,)
    assert seconds.dtype == np.float64
    assert (seconds > 0).all()


def test_what_is_closed_stays_closed(exported: Exported) -> None:
    runner = exported.open(exported.encoder)
    with runner:
        pass
    with runner:  # closing a second time does no harm
        pass
    for use in (runner.infer, lambda inputs: runner.time(inputs, 1)):
        with pytest.raises(UsageError, match=r"encoder\.\w+ is closed: open the file again"):
            use(images())


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"picture": np.zeros((BATCH, 3, SIDE, SIDE), "float32")}, r"lack \['image'\]"),
        ({"image": np.zeros((BATCH, 3, SIDE, 8), "float32")}, r"has shape \(2, 3, 112, 8\)"),
        ({"image": np.zeros((BATCH, 3, SIDE, SIDE))}, "is float64: the model wants float32"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    encoder: Runner, inputs: dict[str, np.ndarray], sentence: str
) -> None:
    for use in (encoder.infer, lambda given: encoder.time(given, 1)):
        with pytest.raises(UsageError, match=sentence):
            use(inputs)


def test_a_missing_file_is_named(exported: Exported) -> None:
    with pytest.raises(DeviceError, match=r"no model file .*gone"):
        exported.open(exported.encoder.with_stem("gone"))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_truncated_file_gives_one_sentence(
    exported: Exported, share: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = exported.encoder.read_bytes()
    cut = tmp_path / f"cut{exported.encoder.suffix}"
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        DeviceError, match=rf"^{exported.case.library} can't load .*cut\."
    ) as caught:
        exported.open(cut)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_callers_thread_keeps_its_denormal_numbers(exported: Exported) -> None:
    with exported.open(exported.encoder) as runner:
        runner.infer(images())
        runner.time(images(), 1)
        assert smallest_product() > 0
    assert smallest_product() > 0


def smallest_product() -> np.float32:
    """1e-40, which is denormal in float32."""
    return (np.full(4, 1e-30, np.float32) * np.float32(1e-10))[0]


def test_threads_are_those_asked_for(exported: Exported) -> None:
    """Each library is asked in its own way: there is no common one."""
    if logical_cores() < 2:
        pytest.skip("OpenVINO takes no more threads than there are cores")
    for threads in (1, 2):
        before = psutil.Process().num_threads()
        with exported.open(exported.encoder, threads=threads) as runner:
            if exported.case.runtime == "onnxruntime":
                assert psutil.Process().num_threads() - before == threads - 1
            elif exported.case.runtime == "openvino":
                compiled = runner._request.get_compiled_model()
                assert int(compiled.get_property("INFERENCE_NUM_THREADS")) == threads
            else:
                assert threads_during(runner) == threads


def threads_during(runner: Runner) -> int:
    seen: list[int] = []
    module = runner._module
    module.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        runner.infer(images())
        runner.time(images(), 1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 2
    assert len(set(seen)) == 1
    return seen[0]


def test_openvino_computes_in_the_precision_that_was_asked_for(exported: Exported) -> None:
    if exported.case.runtime != "openvino":
        pytest.skip("OpenVINO alone chooses the precision where the file is opened")
    wanted = {"fp32": "f32", "bf16": "bf16"}[exported.case.precision]
    with exported.open(exported.encoder) as runner:
        layers = [
            layer.get_rt_info()
            for layer in runner._request.get_compiled_model().get_runtime_model().get_ops()
        ]
    products = {
        layer["runtimePrecision"].astype(str)
        for layer in layers
        if layer["layerType"].astype(str) in ("FullyConnected", "MatMul", "Convolution")
    }
    assert products == {wanted}
