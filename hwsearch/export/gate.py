"""The precision gate: files of low precision, or engines, against the fp32 files.

Files are judged on the CPU. Engines are judged by whoever can run them: `engine_gate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hwsearch.export.compare import (
    Outputs,
    compare,
    decode,
    draw_prompts,
    embed,
    prompt_inputs,
    require_finite,
)
from hwsearch.export.manifest import DECODER_FILE, ENCODER_FILE, Parity, Preprocessing
from hwsearch.export.pixels import Floats, Pixels, check_image, preprocess
from hwsearch.export.prompts import to_frame
from hwsearch.runtime.onnx_export import save_model
from hwsearch.runtime.onnx_rounding import rounding_replica
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.runner import Array, Runner

BOXES_AN_IMAGE = 8
POINTS_A_PROMPT = 3  # a box and a point together


@dataclass(frozen=True)
class Probe:
    """An image, H×W×3 uint8 RGB, and the boxes of its objects, N×4 in pixels; None: draw some."""

    image: Pixels
    boxes: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Case:
    """What the models are given for one image: the frame, K×4 boxes and K×1×2 points in it."""

    frame: Floats
    boxes: Floats
    points: Floats


class Gate:
    """Holds what the fp32 files give for some images, and compares others with it.

    Files of low precision are run as their rounding replicas (`onnx_rounding`).

    Args:
        folder: holds the fp32 `encoder.onnx` and `decoder.onnx`.
        scratch: a folder for replicas.
        how: how the encoder wants its images.
        probes: the images to judge on.
        threads: of ONNX Runtime.

    Raises:
        ExportError: the fp32 files give infinite or undefined numbers.
        UsageError: an image is no H×W×3 uint8 array.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scratch: Path,
        how: Preprocessing,
        probes: Sequence[Probe],
        threads: int,
    ) -> None:
        self._decoder = folder / DECODER_FILE
        self._scratch = scratch
        self._how = how
        self._threads = threads
        self._cases = prepared(probes, how)
        with self._open(folder / ENCODER_FILE) as encoder, self._open(self._decoder) as decoder:
            self._expected = [
                decode(decoder, embed(encoder, case.frame), case.boxes, case.points)
                for case in self._cases
            ]
        for outputs in self._expected:
            require_finite(outputs, "fp32 files")

    @property
    def expected_embeddings(self) -> list[Floats]:
        """The fp32 encoder's, for each image."""
        return [outputs.embeddings for outputs in self._expected]

    def embeddings(self, encoder: onnx.ModelProto) -> list[Floats]:
        """Those of an encoder of low precision."""
        with self._open(self._replica(encoder)) as runner:
            return [embed(runner, case.frame) for case in self._cases]

    def judge(
        self, embeddings: Sequence[Floats], decoder: onnx.ModelProto | None = None
    ) -> Parity | None:
        """How far masks are from those of fp32; None if there are infinite or undefined numbers.

        Args:
            embeddings: of each image.
            decoder: one of low precision; None for the fp32 one.
        """
        path = self._decoder if decoder is None else self._replica(decoder)
        with self._open(path) as runner:
            return self._judge(embeddings, runner)

    def judge_runners(self, encoder: Runner, decoder: Runner) -> Parity | None:
        """How far masks of two opened models are from those of fp32; None as in `judge`.

        Raises:
            DeviceError: they can't be run.
        """
        return self._judge([embed(encoder, case.frame) for case in self._cases], decoder)

    def _judge(self, embeddings: Sequence[Floats], decoder: Runner) -> Parity | None:
        if not all(np.isfinite(embedding).all() for embedding in embeddings):
            return None
        got = [
            decode(decoder, embedding, case.boxes, case.points)
            for embedding, case in zip(embeddings, self._cases, strict=True)
        ]
        if not all(outputs.finite for outputs in got):
            return None
        pairs: list[tuple[Outputs, Outputs]] = list(zip(self._expected, got, strict=True))
        return compare(pairs, threshold=self._how.mask_threshold)

    def encoder_inputs(self) -> dict[str, Array]:
        """What an encoder is given for the first image."""
        return {"image": self._cases[0].frame}

    def decoder_inputs(self) -> dict[str, Array]:
        """What a decoder is given for the boxes of the first image."""
        case = self._cases[0]
        return dict(prompt_inputs(self._expected[0].embeddings, case.boxes, case.points)[0])

    def drift(
        self,
        exact: onnx.ModelProto,
        low: onnx.ModelProto,
        values: Sequence[str],
        inputs: dict[str, Array],
    ) -> list[float]:
        """Relative error of some inner values of a model of low precision, in their order.

        Infinite or undefined numbers count as an error of infinity.
        """
        with self._open(self._written(_showing(exact, values))) as runner:
            want = runner.infer(inputs)
        with self._open(self._written(_showing(rounding_replica(low), values))) as runner:
            got = runner.infer(inputs)
        return [_relative_error(want[name], got[name]) for name in values]

    def _replica(self, model: onnx.ModelProto) -> Path:
        return self._written(rounding_replica(model))

    def _written(self, model: onnx.ModelProto) -> Path:
        return save_model(model, self._scratch / "replica.onnx")

    def _open(self, path: Path) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(path, threads=self._threads)


def prepared(probes: Sequence[Probe], how: Preprocessing) -> list[_Case]:
    """Frames and prompts; where there are boxes, the points are their centres.

    Raises:
        UsageError: an image is no H×W×3 uint8 array.
    """
    rng = np.random.default_rng(0)
    cases = []
    for probe in probes:
        check_image(probe.image)
        boxes, points = draw_prompts(rng, how.resolution)
        if probe.boxes is not None and len(probe.boxes):
            corners = np.asarray(probe.boxes[:BOXES_AN_IMAGE], np.float64).reshape(-1, 2, 2)
            size = (probe.image.shape[0], probe.image.shape[1])
            framed = to_frame(corners, size, how.resolution)
            boxes = framed.reshape(-1, 4).astype(np.float32)
            points = framed.mean(axis=1, keepdims=True).astype(np.float32)
        cases.append(_Case(frame=preprocess(probe.image, how), boxes=boxes, points=points))
    return cases


def calibration_readings(
    probes: Sequence[Probe], how: Preprocessing, encoder: Path, *, threads: int
) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    """Inputs of the encoder and of the decoder, for quantisation to see their values.

    Raises:
        UsageError: an image is no H×W×3 uint8 array.
    """
    cases = prepared(probes, how)
    frames: list[dict[str, Array]] = [{"image": case.frame} for case in cases]
    prompts: list[dict[str, Array]] = []
    with OnnxRuntimeRunner(encoder, threads=threads) as runner:
        for case in cases:
            given = prompt_inputs(embed(runner, case.frame), case.boxes, case.points)
            prompts.extend(dict(inputs) for inputs in given)
    return frames, prompts


def _showing(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A model whose outputs are some of its float32 values."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in values
    )
    return shown


def _relative_error(want: Array, got: Array) -> float:
    if not np.isfinite(got).all():
        return float("inf")
    exact = np.asarray(want, np.float64)
    difference = np.linalg.norm(exact - np.asarray(got, np.float64))
    return float(difference / max(float(np.linalg.norm(exact)), 1e-12))
