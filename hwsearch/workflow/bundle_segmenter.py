"""A bundle's own ONNX files, in a form that can be evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hwsearch.data.dataset import Pixels
from hwsearch.export.manifest import (
    DECODER_FILE,
    BundleManifest,
    Preprocessing,
    check_files,
    read_manifest,
)
from hwsearch.export.pixels import preprocess
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.runner import Array, Runner

_RUNTIMES_OWN_CHOICE = 0


class BundleSegmenter:
    """The encoder and the decoder of a bundle; see `hwsearch.evaluation.Segmenter`.

    Args:
        preprocessing: what the bundle's manifest says of it.
        encoder: `image` in, `image_embeddings` out.
        decoder: `image_embeddings`, `point_coords` and `point_labels` in, `low_res_masks` and
            `iou_predictions` out.
    """

    def __init__(self, preprocessing: Preprocessing, *, encoder: Runner, decoder: Runner) -> None:
        self._preprocessing = preprocessing
        self._encoder = encoder
        self._decoder = decoder

    @property
    def resolution(self) -> int:
        """Side of the input frame in pixels."""
        return self._preprocessing.resolution

    def encode(self, images: Sequence[Pixels]) -> Tensor:
        """Encode images one by one, as a user of the bundle does."""
        frames = [preprocess(image, self._preprocessing) for image in images]
        return torch.cat(
            [_tensor(self._encoder.infer({"image": frame})["image_embeddings"]) for frame in frames]
        )

    def decode(self, embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the prompts of one image after the other; see `Segmenter.decode`."""
        outputs = [
            self._decoder.infer(
                {
                    "image_embeddings": embedding.unsqueeze(0).numpy(),
                    "point_coords": coords.numpy(),
                    "point_labels": kinds.float().numpy(),
                }
            )
            for embedding, coords, kinds in zip(embeddings, points, labels, strict=True)
        ]
        logits = torch.stack([_tensor(output["low_res_masks"]) for output in outputs])
        ious = torch.stack([_tensor(output["iou_predictions"]) for output in outputs])
        # Mask token 0 is the single mask, the others are the three for ambiguous prompts.
        return logits[:, :, 1:] - self._preprocessing.mask_threshold, ious[:, :, 1:]


@contextmanager
def open_segmenter(
    bundle: Path, *, threads: int = _RUNTIMES_OWN_CHOICE
) -> Iterator[tuple[BundleManifest, BundleSegmenter]]:
    """Open a bundle's ONNX files with ONNX Runtime on the CPU.

    Args:
        bundle: the bundle's directory.
        threads: threads for each run; 0 for one a physical core.

    Raises:
        ExportError: there is no bundle, or a file of it is missing or damaged.
        DeviceError: ONNX Runtime can't load its files.
    """
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, digests=True)
    with (
        OnnxRuntimeRunner(bundle / manifest.encoder_file, threads=threads) as encoder,
        OnnxRuntimeRunner(bundle / DECODER_FILE, threads=threads) as decoder,
    ):
        yield manifest, BundleSegmenter(manifest.preprocessing, encoder=encoder, decoder=decoder)


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float32, copy=False))
