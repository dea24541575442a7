"""Loads a bundle and predicts masks with it, through SamPredictor's interface.

Needs NumPy, Pillow, pydantic and ONNX Runtime, but neither torch nor segment_anything.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import UsageError
from hwsearch.export.manifest import (
    DECODER_FILE,
    BundleManifest,
    check_files,
    read_manifest,
)
from hwsearch.export.pixels import (
    Floats,
    Pixels,
    Size,
    check_image,
    preprocess,
    upscale_masks,
)
from hwsearch.export.prompts import encode_boxes, encode_prompt
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.runner import Runner

Masks = NDArray[np.bool_] | Floats
BOXES_AT_ONCE = 32
_RUNTIMES_OWN_CHOICE = 0


class Bundle:
    """An open bundle. Predicts masks for one image at a time, like `SamPredictor`.

    Use it as a context manager, or let it live as long as the program: closing it only frees
    the memory of its two sessions.

    Args:
        manifest: what the bundle says about itself.
        encoder: `image` in, `image_embeddings` out.
        decoder: `image_embeddings`, `point_coords` and `point_labels` in, `low_res_masks` and
            `iou_predictions` out.
    """

    def __init__(self, manifest: BundleManifest, *, encoder: Runner, decoder: Runner) -> None:
        self.manifest = manifest
        self._encoder = encoder
        self._decoder = decoder
        self._features: Floats | None = None
        self._size: Size = (0, 0)

    @property
    def is_image_set(self) -> bool:
        """Whether `predict` has an image to work on."""
        return self._features is not None

    def set_image(self, image: Pixels, image_format: str = "RGB") -> None:
        """Compute the embedding of an image, for as many `predict` calls as wanted.

        Args:
            image: H×W×3 pixels, uint8.
            image_format: the order of the channels, `RGB` or `BGR`.

        Raises:
            UsageError: the image or the format is none of these.
        """
        check_image(image)
        if image_format not in ("RGB", "BGR"):
            raise UsageError(f"There is no image format {image_format!r}: take RGB or BGR.")
        self.reset_image()
        rgb = image if image_format == "RGB" else np.ascontiguousarray(image[..., ::-1])
        frame = preprocess(rgb, self.manifest.preprocessing)
        self._features = _floats(self._encoder.infer({"image": frame})["image_embeddings"])
        self._size = (image.shape[0], image.shape[1])

    def reset_image(self) -> None:
        """Forget the image."""
        self._features = None

    def get_image_embedding(self) -> Floats:
        """The embedding of the image that is set, 1×C×G×G.

        Raises:
            UsageError: no image is set.
        """
        if self._features is None:
            raise UsageError("There is no image yet: call set_image first.")
        return self._features

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        *,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Masks, Floats, Floats]:
        """Predict the masks of one prompt.

        Args:
            point_coords: N×2 points, (x, y) in pixels of the image.
            point_labels: N labels: 1 object, 0 background.
            box: x0, y0, x1, y1 in pixels of the image.
            multimask_output: the three masks for an ambiguous prompt, else the single mask.
            return_logits: give masks as float32 logits, not as booleans.

        Returns:
            Masks (C×H×W, size of the image), their predicted IoUs (C), and low-resolution logits
            (C×4G×4G).

        Raises:
            UsageError: no image is set, no prompt is given, or its arrays have another form.
        """
        points, labels = encode_prompt(
            points=point_coords,
            labels=point_labels,
            box=box,
            size=self._require_size(),
            resolution=self.manifest.preprocessing.resolution,
        )
        masks, ious, low_res = self._decode(points, labels, multimask_output, return_logits)
        return masks[0], ious[0], low_res[0]

    def predict_boxes(
        self, boxes: ArrayLike, *, multimask_output: bool = True, return_logits: bool = False
    ) -> tuple[Masks, Floats, Floats]:
        """Predict the masks of many boxes (n×4) at once.

        Returns:
            As `predict`, each with a first dimension of n boxes.

        Raises:
            UsageError: no image is set, or the boxes have another form.
        """
        points, labels = encode_boxes(
            boxes,
            size=self._require_size(),
            resolution=self.manifest.preprocessing.resolution,
        )
        if len(points) == 0:
            return self._nothing(multimask_output, return_logits)
        parts = [
            self._decode(
                points[start : start + BOXES_AT_ONCE],
                labels[start : start + BOXES_AT_ONCE],
                multimask_output,
                return_logits,
            )
            for start in range(0, len(points), BOXES_AT_ONCE)
        ]
        masks, ious, low_res = (np.concatenate(part) for part in zip(*parts, strict=True))
        return masks, ious, low_res

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reset_image()
        self._encoder.__exit__(kind, error, trace)
        self._decoder.__exit__(kind, error, trace)

    def _require_size(self) -> Size:
        self.get_image_embedding()
        return self._size

    def _decode(
        self, points: Floats, labels: Floats, multimask_output: bool, return_logits: bool
    ) -> tuple[Masks, Floats, Floats]:
        outputs = self._decoder.infer(
            {
                "image_embeddings": self.get_image_embedding(),
                "point_coords": points,
                "point_labels": labels,
            }
        )
        # Mask token 0 is the single mask, the others are the three for ambiguous prompts.
        tokens = slice(1, None) if multimask_output else slice(0, 1)
        low_res = _floats(outputs["low_res_masks"])[:, tokens]
        ious = _floats(outputs["iou_predictions"])[:, tokens]
        how = self.manifest.preprocessing
        logits = upscale_masks(low_res, resolution=how.resolution, size=self._size)
        return (logits if return_logits else logits > how.mask_threshold), ious, low_res

    def _nothing(self, multimask_output: bool, return_logits: bool) -> tuple[Masks, Floats, Floats]:
        """The answer to no boxes: empty, with the dimensions that any answer has."""
        box = [0, 0, self._size[1], self._size[0]]
        masks, ious, low_res = self.predict_boxes(
            [box], multimask_output=multimask_output, return_logits=return_logits
        )
        return masks[:0], ious[:0], low_res[:0]


def load_bundle(path: Path | str, *, threads: int | None = None, verify: bool = True) -> Bundle:
    """Open a bundle with ONNX Runtime on the CPU.

    Args:
        path: the bundle's directory.
        threads: threads for each run; without it, ONNX Runtime takes one a physical core.
        verify: compare the SHA-256 of every file with the manifest, and not only its size.

    Raises:
        ExportError: there is no bundle, or a file of it is missing or damaged.
        DeviceError: ONNX Runtime can't load its files.
        UsageError: `threads` is less than 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads can't be used: take 1 or more.")
    bundle = Path(path)
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, digests=verify)
    count = threads or _RUNTIMES_OWN_CHOICE
    return Bundle(
        manifest,
        encoder=OnnxRuntimeRunner(bundle / manifest.encoder_file, threads=count),
        decoder=OnnxRuntimeRunner(bundle / DECODER_FILE, threads=count),
    )


def _floats(values: NDArray[np.generic]) -> Floats:
    return values.astype(np.float32, copy=False)
