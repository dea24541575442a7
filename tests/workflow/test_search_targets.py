"""Targets of a search: here or elsewhere, in several precisions, with their latencies."""

import numpy as np
import pytest
from tiny import GEOMETRY, SUBNETS

from hwsearch.costs import encoder_macs
from hwsearch.errors import PredictorError, UsageError
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import save_latency_predictor
from hwsearch.records import Deployment, Target
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.latencies import SearchLatencies
from hwsearch.workflow.targets import (
    SearchTarget,
    in_order,
    single_target,
    target_here,
    target_of_workspace,
)
from hwsearch.workflow.workspace import Workspace

FAR = Target(device="cpu", device_name="A far board", runtime="onnxruntime", runtime_version="1.0")
FAR_INT8 = FAR.model_copy(update={"precision": "int8"})
CONFIGS = list(SUBNETS.values())


def predictor(target: Target, factor: float) -> LatencyPredictor:
    latencies = [factor * (1 + encoder_macs(GEOMETRY, config) / 1e6) for config in CONFIGS]
    return LatencyPredictor(GEOMETRY, target, GEOMETRY.id).fit(CONFIGS, latencies)


@pytest.fixture(scope="module")
def predictors() -> dict[Target, LatencyPredictor]:
    return {FAR: predictor(FAR, 1.0), FAR_INT8: predictor(FAR_INT8, 0.5)}


@pytest.fixture
def workspace(tmp_path, predictors):
    place = Workspace(tmp_path)
    for target, fitted in predictors.items():
        save_latency_predictor(
            fitted, place.predictor(target, GEOMETRY.id), noise_floor_percent=None
        )
    return place


def test_a_target_here_has_each_precision():
    found = target_here(latency_ms=5.0, device="cpu", precisions=("fp32", "int8"), threads=1)
    assert [target.precision for target in found.targets] == ["fp32", "int8"]
    assert found.in_precision("int8").threads == 1
    turned = target_here(latency_ms=5.0, device="cpu", precisions=("int8", "fp32"), threads=1)
    assert turned == found, "the order in which they are given makes no other study"
    assert found.measured_here
    assert "-fp32+int8-" in found.name
    alone = target_here(latency_ms=5.0, device="cpu", precisions=("fp32",), threads=1)
    assert alone.fingerprint == alone.targets[0].fingerprint != found.fingerprint


def test_a_target_from_elsewhere_needs_only_its_predictor(workspace: Workspace):
    found = target_of_workspace(
        FAR.name,
        latency_ms=8.0,
        workspace=workspace,
        supernet_id=GEOMETRY.id,
        precisions=("fp32", "int8"),
    )
    assert found.targets == (FAR, FAR_INT8)
    assert not found.measured_here
    with pytest.raises(UsageError, match=f"no target 'attic'.*{FAR.name}"):
        target_of_workspace("attic", latency_ms=8.0, workspace=workspace, supernet_id=GEOMETRY.id)
    with pytest.raises(UsageError, match="no target"):
        target_of_workspace(
            FAR.name, latency_ms=8.0, workspace=workspace, supernet_id="another-supernet"
        )


def test_what_can_be_measured_comes_first():
    far = SearchTarget(targets=(FAR,), precisions=("fp32",), latency_ms=8.0, measured_here=False)
    here = single_target(FAR.model_copy(update={"threads": 2}), 5.0)
    assert in_order([far, here]) == (here, far)
    with pytest.raises(UsageError, match="on one target at least"):
        in_order([far])
    with pytest.raises(UsageError, match="given twice"):
        in_order([here, here])
    with pytest.raises(UsageError, match="one precision on all targets"):
        in_order([here, single_target(FAR_INT8, 5.0)])


def test_a_table_takes_each_deployments_own_predictor(predictors):
    both = SearchTarget(targets=(FAR, FAR_INT8), precisions=("fp32", "int8"), latency_ms=8.0)
    latencies = SearchLatencies([both, both], predictors=predictors, stopwatches={})
    chosen = [
        Deployment(subnet=config, precision=precision)
        for config in CONFIGS[:3]
        for precision in ("fp32", "int8")
    ]
    table = latencies.predict(chosen)
    assert table.shape == (6, 2)
    for row, one in zip(table, chosen, strict=True):
        target = both.in_precision(one.precision)
        assert row == pytest.approx([predictors[target].predict([one.subnet])[0]] * 2)
    assert np.all(latencies.upper(chosen) >= table)
    assert np.isnan(latencies.measure(chosen)).all()


def test_only_what_was_measured_corrects_a_predictor(predictors):
    both = SearchTarget(targets=(FAR, FAR_INT8), precisions=("fp32", "int8"), latency_ms=8.0)
    latencies = SearchLatencies([both], predictors=predictors, stopwatches={})
    chosen = [Deployment(subnet=CONFIGS[0], precision=name) for name in ("fp32", "int8")]
    before = latencies.predict(chosen)
    latencies.refit(chosen, np.array([[np.nan], [3 * before[1, 0]]]))
    after = latencies.predict(chosen)
    assert after[0, 0] == before[0, 0]
    assert len(latencies.predictors[FAR_INT8].latencies_ms_) == len(CONFIGS)
    assert latencies.predictors[FAR] is predictors[FAR]
    assert latencies.predictors[FAR_INT8] is not predictors[FAR_INT8]


def test_a_predictor_of_another_target_is_refused(workspace: Workspace, supernet: Supernet):
    from hwsearch.predictor.store import load_latency_predictor

    with pytest.raises(PredictorError, match="another target"):
        load_latency_predictor(workspace.predictor(FAR, GEOMETRY.id), target=FAR_INT8)
