"""The whole way on a real GPU; skipped where there is none, saying why."""

from pathlib import Path

import numpy as np
import pytest

from hwsearch.cli.main import run
from hwsearch.errors import DeviceError
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.records import Target
from hwsearch.runtime.devices import resolve_target
from hwsearch.runtime.onnx_export import export_encoder
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.open import open_runner
from hwsearch.supernet.store import load_supernet
from hwsearch.workflow.profile import profile_supernet
from hwsearch.workflow.workspace import Workspace

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module")
def target() -> Target:
    try:
        return resolve_target(device="cuda")
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Path:
    supernet = load_supernet("demo")
    path = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
    return export_encoder(supernet.extract(supernet.space.smallest), path)


def images(runner) -> dict[str, np.ndarray]:
    shape = [size or 1 for size in runner.inputs[0].shape]
    return {"image": np.random.default_rng(0).normal(size=shape).astype("float32")}


def test_an_engine_computes_what_onnx_runtime_does(target: Target, encoder: Path):
    with open_runner(target, encoder) as runner, OnnxRuntimeRunner(encoder, threads=2) as other:
        got = runner.infer(images(runner))["image_embeddings"]
        want = other.infer(images(runner))["image_embeddings"]
        cosine = (got * want).sum() / np.sqrt((got**2).sum() * (want**2).sum())
        assert cosine > 0.999
        assert runner.captured
        assert runner.device_memory_bytes > 1 << 20


def test_latencies_are_steady_and_layers_add_up(target: Target, encoder: Path):
    with open_runner(target, encoder) as runner:
        seconds = runner.time(images(runner), 200)
        assert seconds.shape == (200,)
        assert 0 < np.median(seconds) < 1
        alone = runner.time_alone(images(runner), least_s=1.0).gpu
        assert abs(np.median(alone) / np.median(seconds) - 1) < 0.2
        layers = runner.profile_layers(images(runner), 5)
        total = sum(layer.mean_ms for layer in layers) / 1e3
        assert total > np.median(alone) / 2


def test_subnets_are_profiled_in_workers(target: Target, tmp_path: Path):
    supernet = load_supernet("demo")
    workspace = Workspace(tmp_path)
    summary = profile_supernet(
        supernet,
        target=target,
        workspace=workspace,
        samples=4,
        settings=SessionSettings(budget_s=5, min_rounds=3, max_rounds=5),
    )
    assert (summary.failed, summary.measured) == (0, 4)
    assert 0 < summary.fastest_ms < summary.slowest_ms
    rows = ProfileStore(workspace.profiles, target).read(supernet.id).measurements
    assert all(row.memory_bytes for row in rows)


def test_the_doctor_finds_nothing_wrong(target: Target, capsys: pytest.CaptureFixture[str]):
    assert run(["doctor", "--device", "cuda"]) == 0
    assert "Verdict: ok" in capsys.readouterr().out
