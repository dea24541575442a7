"""Fixtures around the laboratory: its space, a fresh study, and a search with few arguments."""

from pathlib import Path

import pytest
from laboratory import (
    GEOMETRY,
    Lab,
    Law,
    every_deployment,
    laboratory_identity,
    laboratory_space,
    law_miou,
    law_ms,
)

from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.run import SearchOutcome, StudyPlan, TargetLimit, run_search


@pytest.fixture
def space():
    return laboratory_space()


@pytest.fixture
def deployments(space: DeploymentSpace):
    return every_deployment(space)


@pytest.fixture
def lab():
    return Lab()


@pytest.fixture
def law() -> Law:
    """(mIoU, latency in ms) of a deployment, as the laboratory knows them."""
    return law_miou, law_ms


@pytest.fixture
def context():
    return laboratory_identity().accuracy


@pytest.fixture
def storage(tmp_path: Path):
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def search(tmp_path: Path, space: DeploymentSpace, context: AccuracyContext, storage: str):
    """`run_search` with everything but the laboratory and the target latency filled in."""

    def run(lab: Lab, *limits_ms: float, **changes: object) -> SearchOutcome:
        plan = {
            "space": space,
            "accuracy": context,
            "targets": [
                TargetLimit(name=f"test-cpu-{number}", fingerprint=f"f{number}", latency_ms=limit)
                for number, limit in enumerate(limits_ms)
            ],
            "name": "leaves",
            "storage": storage,
            "cache": tmp_path / "accuracy.jsonl",
            "verifier": "here",
        }
        plan |= {name: changes.pop(name) for name in plan.keys() & changes.keys()}
        arguments = {"geometry": GEOMETRY, "trials": 12} | changes
        return run_search(lab.objectives, StudyPlan(**plan), **arguments)

    return run
