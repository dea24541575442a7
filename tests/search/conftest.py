"""Fixtures around the laboratory: its space, a fresh study, and a search with few arguments."""

from pathlib import Path

import pytest
from laboratory import GEOMETRY, Lab, Law, every_subnet, law_miou, law_ms

from hwsearch.records import Target
from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.search.run import SearchOutcome, run_search
from hwsearch.space import SearchSpace, default_space


@pytest.fixture
def space():
    return default_space(
        GEOMETRY,
        resolutions=(32, 48, 64),
        width_ratios=(0.25, 0.5, 1.0),
        head_ratios=(0.5, 1.0),
        min_depth=2,
        removal_order=(1, 3, 2),
    )


@pytest.fixture
def subnets(space: SearchSpace):
    return list(every_subnet(space))


@pytest.fixture
def lab():
    return Lab()


@pytest.fixture
def law() -> Law:
    """(mIoU, latency in ms) of a subnet, as the laboratory knows them."""
    return law_miou, law_ms


@pytest.fixture
def context():
    return AccuracyContext(
        supernet_id="custom-1",
        weights_digest="aa",
        data="leaves",
        data_fingerprint="bb",
        split="val",
        framing="object",
    )


@pytest.fixture
def target():
    return Target(
        device="cpu", device_name="Test CPU", runtime="onnxruntime", runtime_version="1.0"
    )


@pytest.fixture
def storage(tmp_path: Path):
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def search(
    tmp_path: Path, space: SearchSpace, context: AccuracyContext, target: Target, storage: str
):
    """`run_search` with everything but the laboratory and the target latency filled in."""

    def run(lab: Lab, target_latency_ms: float, **changes: object) -> SearchOutcome:
        arguments = {
            "space": space,
            "geometry": GEOMETRY,
            "accuracy": context,
            "target": target,
            "target_latency_ms": target_latency_ms,
            "study": "leaves",
            "storage": storage,
            "cache": tmp_path / "accuracy.jsonl",
            "trials": 12,
        }
        return run_search(lab.objectives, **(arguments | changes))

    return run
