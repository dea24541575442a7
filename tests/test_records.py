"""Records: validated when made, refused when wrong, the same after a journey through JSON."""

import math

import pytest
from pydantic import ValidationError
from tiny import GEOMETRY, MIXED, subnet

from hwsearch.errors import UsageError
from hwsearch.records import (
    LatencyStats,
    LayerConfig,
    Measurement,
    Record,
    SamGeometry,
    SubnetConfig,
    Target,
    short_digest,
)

TARGET = Target(
    device="cuda:0",
    device_name="NVIDIA L4 (24 GB)",
    runtime="tensorrt",
    runtime_version="10.13.3",
    precision="fp16",
)


def measurement(**changes: object) -> Measurement:
    fields: dict[str, object] = {
        "supernet_id": GEOMETRY.id,
        "subnet_id": MIXED.id,
        "subnet": MIXED,
        "target": TARGET,
        "session_id": "s",
        "encoder_ms": 30.5,
        "decoder_ms": 4.25,
    }
    return Measurement.model_validate(fields | changes)


def test_a_subnets_id_is_pinned():
    # Profiles, caches and bundles on users' disks carry such ids: they must never change.
    assert MIXED.to_json() == (
        '{"resolution":112,"layers":[{"index":0,"mlp_width":64,"heads":4},'
        '{"index":2,"mlp_width":16,"heads":2},{"index":3,"mlp_width":32,"heads":1}]}'
    )
    assert MIXED.id == "aa41c8bc6923"
    assert GEOMETRY.id == "custom-11c750bc"


def test_an_id_tells_subnets_apart():
    assert MIXED.id != MIXED.model_copy(update={"resolution": 128}).id
    assert SubnetConfig.from_json(MIXED.to_json()).id == MIXED.id


@pytest.mark.parametrize("record", [MIXED, GEOMETRY, TARGET, measurement()])
def test_json_round_trip(record: Record):
    again = type(record).from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()


def test_records_are_frozen():
    with pytest.raises(ValidationError):
        MIXED.resolution = 64


@pytest.mark.parametrize("indices", [(0, 2, 1), (0, 1, 1), ()])
def test_layers_ascend_and_there_is_one(indices: tuple[int, ...]):
    with pytest.raises(ValidationError):
        subnet(indices=indices)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "Invalid JSON"),
        ('{"resolution": 64}', "layers: Field required"),
        (MIXED.to_json().replace("112", "-112"), "resolution"),
        (MIXED.to_json().replace('"heads":1', '"heads":1,"colour":3'), "layers.2.colour"),
    ],
)
def test_wrong_json_is_one_sentence_that_says_where(text: str, fault: str):
    with pytest.raises(UsageError, match=fault) as caught:
        SubnetConfig.from_json(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("This is no valid SubnetConfig")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"image_size": 120}, "no multiple of patch_size"),
        ({"heads": 5}, "no multiple of heads"),
        ({"global_layers": (1, 4)}, "reach past depth"),
    ],
)
def test_impossible_geometries_are_refused(changes: dict[str, object], fault: str):
    with pytest.raises(ValidationError, match=fault):
        SamGeometry.model_validate(GEOMETRY.model_dump() | changes)


def test_what_a_geometry_says_of_its_layers():
    assert GEOMETRY.head_dim == 8
    assert [GEOMETRY.is_global(index) for index in range(4)] == [False, True, False, True]


def test_a_geometrys_id_begins_with_its_model_and_follows_every_size():
    other = GEOMETRY.model_copy(update={"window_size": 4})
    assert GEOMETRY.id.startswith("custom-")
    assert other.id != GEOMETRY.id


def test_a_targets_name_is_fit_for_a_folder_and_ignores_the_runtimes_version():
    newer = TARGET.model_copy(update={"runtime_version": "11.4"})
    assert TARGET.name == newer.name == "cuda0-nvidia-l4-24-gb-tensorrt-fp16-t1-b1"
    assert TARGET.fingerprint != newer.fingerprint


def test_latency_by_scope():
    measured = measurement()
    assert measured.latency_ms("encoder") == 30.5
    assert measured.latency_ms("decoder") == 4.25
    assert measured.latency_ms() == measured.latency_ms("full") == 34.75


def test_a_failed_measurement_has_no_latency():
    failed = measurement(encoder_ms=None, decoder_ms=None, error="out of memory")
    with pytest.raises(UsageError, match="out of memory"):
        failed.latency_ms()


@pytest.mark.parametrize(
    "changes",
    [
        {"error": "both"},
        {"encoder_ms": None, "decoder_ms": None},
        {"encoder_ms": None},
        {"subnet_id": subnet().id},
        {"schema_version": 2},
    ],
)
def test_contradictory_measurements_are_refused(changes: dict[str, object]):
    with pytest.raises(ValidationError):
        measurement(**changes)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_latencies_are_finite_and_not_negative(value: float):
    good = dict.fromkeys(["p50_ms", "p90_ms", "p95_ms", "mean_ms", "std_ms", "low_ms"], 1.0)
    assert LatencyStats(**good, high_ms=2.0, n=3).n == 3
    with pytest.raises(ValidationError):
        LatencyStats(**good, high_ms=value, n=3)


def test_layers_of_no_width_are_refused():
    with pytest.raises(ValidationError):
        LayerConfig(index=0, mlp_width=0, heads=1)


def test_short_digest_is_the_beginning_of_sha256():
    assert short_digest("abc") == short_digest(b"abc") == "ba7816bf8f01"
    assert short_digest("abc", 4) == "ba78"
