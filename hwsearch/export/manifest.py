"""What a bundle says about itself: the records in its `manifest.json`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt

from hwsearch.errors import ExportError, UsageError
from hwsearch.records import Accuracy, Measurement, Record, SamGeometry, SubnetConfig
from hwsearch.runtime.tensorrt_info import EngineInfo

MANIFEST_FILE = "manifest.json"
ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"
INT8_ENCODER_FILE = "encoder-int8.onnx"
ENCODER_ENGINE_FILE = "encoder.engine"
DECODER_ENGINE_FILE = "decoder.engine"
WEIGHTS_FILE = "weights.safetensors"
SUBNET_FILE = "subnet.json"

# A manifest must not be able to name a file outside its bundle.
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Channels = tuple[Finite, Finite, Finite]


class FileDigest(Record):
    """Size and SHA-256 of a file of the bundle."""

    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Preprocessing(Record):
    """How an image becomes the encoder's input.

    The long side is resized to `resolution` pixels (bilinear, antialiased), the pixels become
    (x − `pixel_mean`) / `pixel_std`, and zeros fill the bottom and the right up to a square. A
    mask is where the logits exceed `mask_threshold`.
    """

    resolution: PositiveInt
    pixel_mean: Channels
    pixel_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    mask_threshold: Finite


class Parity(Record):
    """How far one form of a model is from another: of exported files, from torch in eager fp32.

    `embedding_cosine_min` is over all places of all image embeddings; mask IoUs compare the
    low-resolution masks of all mask tokens of all prompts.
    """

    embedding_cosine_min: Finite
    embedding_max_abs_error: Finite
    mask_iou_min: Finite
    mask_iou_mean: Finite
    iou_prediction_max_error: Finite
    images: PositiveInt
    prompts: PositiveInt


class PrecisionAttempt(Record):
    """One step of the ladder. `parity` is against fp32; None: it gave infinity or no numbers."""

    step: str
    parity: Parity | None
    passed: bool


class PartPrecision(Record):
    """What one of the two files computes in.

    `file` is the ONNX file that an engine is built from. `fp32_nodes` and `low_nodes` count its
    nodes with fractional numbers, `int8_products` the matrix products in int8 among them.
    """

    file: PlainName
    step: str
    low_nodes: NonNegativeInt
    fp32_nodes: NonNegativeInt
    int8_products: NonNegativeInt
    fp32_blocks: tuple[str, ...] = ()
    attempts: tuple[PrecisionAttempt, ...]


class PrecisionPlan(Record):
    """How the precision that was asked for was reached, and who judged.

    `parity` is that of both files together, image to mask, against the fp32 files. `images` says
    whether it was judged on the user's images or on drawn ones.
    """

    asked: Precision
    encoder: PartPrecision
    decoder: PartPrecision
    parity: Parity
    embedding_cosine_limit: Finite
    mask_iou_limit: Finite
    iou_prediction_error_limit: Finite
    judge: str
    images: Literal["data", "drawn"]
    calibration_images: NonNegativeInt


class EngineParity(Record):
    """How far a bundle's engines, run on a GPU when they were exported, are from its fp32 files."""

    gpu: str
    parity: Parity


class BundleManifest(Record):
    """All that is known about a bundle.

    `latency` was measured on what the bundle holds: on its engines where `latency.target` is a GPU
    and it has engines, else on `encoder_file` and the fp32 decoder, which on a GPU become engines
    for the purpose. `encoder_file` is also what a loader opens: with dynamic int8 (CPU only) not
    the fp32 encoder.
    `engine_parity` is None where nothing but a GPU's timing, or not even that, has run the engines.
    """

    schema_version: Literal[1] = 1
    created: str
    geometry: SamGeometry
    subnet: SubnetConfig
    preprocessing: Preprocessing
    files: dict[PlainName, FileDigest]
    parity: Parity
    accuracy: Accuracy | None = None
    latency: Measurement | None = None
    precision: PrecisionPlan | None = None
    engines: tuple[EngineInfo, ...] = ()
    engine_parity: EngineParity | None = None
    encoder_file: PlainName = ENCODER_FILE
    versions: dict[str, str]
    provenance: dict[str, JsonValue] = Field(default_factory=dict)


def digest_file(path: Path) -> FileDigest:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(bytes=path.stat().st_size, sha256=sha256)


def read_manifest(bundle: Path) -> BundleManifest:
    """Read a bundle's manifest.

    Raises:
        ExportError: there is no bundle, or its manifest is damaged or of another version.
    """
    path = bundle / MANIFEST_FILE
    if not path.is_file():
        raise ExportError(
            f"{bundle} is no bundle: it has no {MANIFEST_FILE}; write one with hwsearch export."
        )
    try:
        return BundleManifest.from_json(path.read_bytes())
    except UsageError as error:
        raise ExportError(
            f"{path} is damaged or of another version of hwsearch: {error} Export the bundle again."
        ) from None


def check_files(bundle: Path, manifest: BundleManifest, *, digests: bool) -> None:
    """Do nothing if every file of the manifest is there, and with `digests` unchanged.

    Raises:
        ExportError: one is missing, has another size, or other contents; the message names it.
    """
    for name, expected in manifest.files.items():
        path = bundle / name
        if not path.is_file():
            raise ExportError(f"The bundle {bundle} lacks {name}: copy or export it again.")
        intact = path.stat().st_size == expected.bytes and (
            not digests or digest_file(path) == expected
        )
        if not intact:
            raise ExportError(
                f"{path} is not the file that was exported (its size or SHA-256 differs): "
                "copy or export the bundle again."
            )
