"""Frozen, validated records that pass between the stages.

Every record is immutable, refuses unknown fields, carries its units in its field names and goes
to JSON and back without loss. This module knows no other module of the package but `errors`.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from hwsearch.errors import UsageError

Runtime = Literal["onnxruntime", "openvino", "torch", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Scope = Literal["full", "encoder", "decoder"]
Framing = Literal["image", "object"]
ScoreMethod = Literal["magnitude", "wanda", "taylor"]
Index = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A frozen record with a canonical JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def to_json(self) -> str:
        """One line of JSON without spaces, fields in the order of their declaration."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            UsageError: the text is no JSON, or not of this record's form.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise UsageError(f"This is no valid {cls.__name__}: {first_fault(error)}.") from None


def first_fault(error: ValidationError) -> str:
    """The first fault of a pydantic error as a short phrase: where, and what is wrong."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg']}" if where else str(fault["msg"])


class LayerConfig(Record):
    """One kept layer of the image encoder; `index` is its place in the full encoder."""

    index: Index
    mlp_width: PositiveInt
    heads: PositiveInt


class SubnetConfig(Record):
    """A subnet: the input resolution in pixels and the layers that are kept, in order."""

    resolution: PositiveInt
    layers: tuple[LayerConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _indices_ascend(self) -> Self:
        indices = self.indices
        if any(later <= earlier for earlier, later in itertools.pairwise(indices)):
            raise ValueError("layer indices have to ascend without repetition")
        return self

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the kept layers in the full encoder."""
        return tuple(layer.index for layer in self.layers)

    @property
    def depth(self) -> int:
        """How many layers are kept."""
        return len(self.layers)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical JSON."""
        return short_digest(self.to_json())


class Deployment(Record):
    """What a search chooses: a subnet, and the precision that it is to run in."""

    subnet: SubnetConfig
    precision: Precision = "fp32"

    @property
    def id(self) -> str:
        """The subnet's id and the precision, such as `0a1b2c3d4e5f-int8`."""
        return f"{self.subnet.id}-{self.precision}"


def short_digest(text: str | bytes, digits: int = 12) -> str:
    """The first hexadecimal digits of a SHA-256."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:digits]


class SamGeometry(Record):
    """The sizes that define a Segment Anything model.

    `model` is the registry name (`vit_b`, `vit_l`, `vit_h`) or `custom`. Lengths are in pixels
    (`image_size`, `patch_size`) or patches (`window_size`).
    """

    model: str
    image_size: PositiveInt
    patch_size: PositiveInt
    embed_dim: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_width: PositiveInt
    window_size: PositiveInt
    global_layers: tuple[Index, ...]
    prompt_dim: PositiveInt
    mask_in_channels: PositiveInt = 16
    multimask_outputs: PositiveInt = 3
    decoder_depth: PositiveInt = 2
    decoder_mlp_width: PositiveInt = 2048
    decoder_heads: PositiveInt = 8
    iou_head_depth: PositiveInt = 3
    iou_head_width: PositiveInt = 256

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}"
            )
        if self.embed_dim % self.heads:
            raise ValueError(f"embed_dim {self.embed_dim} is no multiple of heads {self.heads}")
        if any(index >= self.depth for index in self.global_layers):
            raise ValueError(f"global_layers {self.global_layers} reach past depth {self.depth}")
        return self

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.heads

    def is_global(self, index: int) -> bool:
        """Whether layer `index` attends to the whole image (else to windows)."""
        return index in self.global_layers

    @property
    def id(self) -> str:
        """Name and digest; a latency profile belongs to this id, whatever the weights."""
        return f"{self.model}-{short_digest(self.to_json(), 8)}"


class LayerImportance(Record):
    """What few-shot evaluation found when one layer was left out.

    `miou_drop` is the full encoder's mIoU minus the mIoU without this layer; a negative value
    means that the model did better without it. `mlp_drop` is the same for the layer's MLP alone,
    None where it was not measured.
    """

    index: Index
    is_global: bool
    miou_drop: float
    mlp_drop: float | None = None
    removal_probability: Share


class ScoreSpread(Record):
    """How the scores that one method gives are spread over the heads and neurons of a layer.

    `heads` is each head's share of all heads' score, in their order. `first_neurons` is the share
    of all neurons' score that the first m neurons hold, `best_neurons` the share that the m best
    would hold: one value for each m of the layer's `mlp_widths`.
    """

    heads: tuple[Share, ...] = Field(min_length=1)
    first_neurons: tuple[Share, ...]
    best_neurons: tuple[Share, ...]


class LayerSpread(Record):
    """Spread of the scores of one layer by each method; half its neurons are a width of it."""

    index: Index
    mlp_widths: tuple[PositiveInt, ...] = Field(min_length=1)
    methods: dict[ScoreMethod, ScoreSpread]

    @model_validator(mode="after")
    def _one_share_a_width(self) -> Self:
        if self._half not in self.mlp_widths:
            raise ValueError(f"mlp_widths {self.mlp_widths} lack half the neurons, {self._half}")
        for method, spread in self.methods.items():
            for shares in (spread.first_neurons, spread.best_neurons):
                if len(shares) != len(self.mlp_widths):
                    raise ValueError(f"{method} has {len(shares)} shares, not one a width")
        return self

    @property
    def _half(self) -> int:
        return self.mlp_widths[-1] // 2

    def first_half(self, method: ScoreMethod) -> float:
        """Share of all neurons' score that the first half of the neurons holds."""
        return self.methods[method].first_neurons[self.mlp_widths.index(self._half)]


class Target(Record):
    """Where and how a subnet runs: device, runtime, precision, threads and batch."""

    device: str
    device_name: str
    runtime: Runtime
    runtime_version: str
    precision: Precision = "fp32"
    threads: PositiveInt = 1
    batch: PositiveInt = 1

    @property
    def name(self) -> str:
        """A folder name that carries the conditions, without the runtime's version."""
        words = re.sub(r"[^a-z0-9]+", "-", self.device_name.lower()).strip("-")
        device = self.device.replace(":", "")
        return f"{device}-{words}-{self.runtime}-{self.precision}-t{self.threads}-b{self.batch}"

    @property
    def fingerprint(self) -> str:
        """Digest of all fields: a predictor fitted under another fingerprint is stale."""
        return short_digest(self.to_json())


class LatencyStats(Record):
    """Summary of `n` raw latencies, with a bootstrap interval of the median (95 %)."""

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p95_ms: Milliseconds
    mean_ms: Milliseconds
    std_ms: Milliseconds
    low_ms: Milliseconds
    high_ms: Milliseconds
    n: PositiveInt


class Drift(Record):
    """The reference's latency around a measurement, and the anchor that it is held against.

    The anchor is the reference's median in the first session of the profile. A raw latency times
    `anchor_ms / around_ms` is roughly the drift-corrected latency, which each of the calls was
    corrected for by itself.

    Attributes:
        around_ms: the reference's latency while this subnet had its turns.
        anchor_ms: what it took in the first session.
        group_ms: the median of `around_ms` over the subnets that were timed together; in profiles
            of earlier versions it is found when they are read.
        reference_id: which subnet it is; None in older profiles, where it has all layers and the
            lowest resolution.
        share_correction: the logarithm of what the corrected latencies were multiplied by, because
            subnets take another share of the drift than all of it. As it is stored it is 0.
        session_correction: the same, because all subnets of the session came out too fast or too
            slow together. As it is stored it is 0.
    """

    around_ms: Milliseconds
    anchor_ms: Milliseconds
    group_ms: Milliseconds | None = None
    reference_id: str | None = None
    share_correction: float = 0.0
    session_correction: float = 0.0


class GpuState(Record):
    """The state of a GPU at one moment; `throttled_by` is what holds its clocks down."""

    driver: str
    sm_clock_mhz: int
    max_sm_clock_mhz: int
    memory_clock_mhz: int
    temperature_c: int
    throttled_by: tuple[str, ...] = ()


class Conditions(Record):
    """The state of the machine and the versions of the software during a session.

    `gpu` is None for targets on a CPU, and where NVIDIA's management library is not installed.
    """

    timestamp: str
    versions: dict[str, str]
    cpu: str
    cores: PositiveInt
    governor: str | None = None
    clock_mhz: float | None = None
    load_average: float | None = None
    gpu: GpuState | None = None


class Measurement(Record):
    """One line of a latency profile: a subnet's latency on a target, or the error that befell it.

    Latency is image in to mask out at the target's batch: image encoder plus a decoder pass with
    one prompt, preprocessing apart. Raw statistics and drift-corrected latencies are both kept.

    `low_ms` and `high_ms` are the 95 % interval of the corrected latency of both parts together
    within its session (two sessions differ by more), None in older profiles. `drifted` marks a
    measurement whose corrected latency is not to be trusted. `memory_bytes` is the peak resident
    memory that loading and running both models took in a process of their own, beyond what that
    process had before; on a GPU, the GPU's memory. `drawn` tells whether chance put together what
    its session timed; None in older profiles.
    """

    schema_version: Literal[1] = 1
    supernet_id: str
    subnet_id: str
    subnet: SubnetConfig
    target: Target
    session_id: str
    repeat: Index = 0
    encoder: LatencyStats | None = None
    decoder: LatencyStats | None = None
    encoder_ms: Milliseconds | None = None
    decoder_ms: Milliseconds | None = None
    low_ms: Milliseconds | None = None
    high_ms: Milliseconds | None = None
    drift: Drift | None = None
    drifted: bool = False
    drawn: bool | None = None
    memory_bytes: int | None = None
    conditions: Conditions | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _measured_or_failed(self) -> Self:
        measured = self.encoder_ms is not None and self.decoder_ms is not None
        if measured == (self.error is not None):
            raise ValueError("a measurement has either its latencies or an error")
        if self.subnet_id != self.subnet.id:
            raise ValueError(f"subnet_id {self.subnet_id} is not the id of the subnet")
        return self

    def latency_ms(self, scope: Scope = "full") -> float:
        """The drift-corrected median latency in milliseconds.

        Raises:
            UsageError: the measurement failed and has no latency.
        """
        if self.encoder_ms is None or self.decoder_ms is None:
            raise UsageError(f"Subnet {self.subnet_id} has no latency: {self.error}.")
        if scope == "encoder":
            return self.encoder_ms
        if scope == "decoder":
            return self.decoder_ms
        return self.encoder_ms + self.decoder_ms


class Accuracy(Record):
    """Mean IoU of a model on a data set, and how it was found.

    `miou` takes the mask that the predicted IoU selects, `miou_oracle` the best of all masks by
    ground truth; `prompt` and `selection` belong to `miou`, `miou_interval` and `miou_by_size`.
    `framing` tells whether the model saw whole images or a crop around each object; `images` counts
    whole images either way.

    `miou_interval` is a 95 % percentile bootstrap interval over images, None with a single one.
    `one_click_miou` has one click inside each object as its prompt and the same selection; None
    where it was not asked for. `ap` and `ap50` are COCO's mask AP of box-prompted masks ranked by
    predicted IoU, without any detector; None where objects have no class.
    """

    miou: Share
    miou_oracle: Share
    instances: PositiveInt
    images: PositiveInt
    data: str
    split: str
    framing: Framing
    prompt: Literal["box", "point"] = "box"
    selection: Literal["predicted_iou"] = "predicted_iou"
    miou_by_size: dict[str, float] = {}
    miou_interval: tuple[Share, Share] | None = None
    one_click_miou: Share | None = None
    one_click_miou_oracle: Share | None = None
    ap: Share | None = None
    ap50: Share | None = None
