"""Training and evaluation on a real GPU; skipped where there is none, saying why."""

import json
from pathlib import Path

import pytest

from hwsearch.cli.main import run
from hwsearch.compute import compute_device
from hwsearch.errors import DeviceError
from hwsearch.runtime.devices import resolve_target
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.workflow.accuracy import search_data
from hwsearch.workflow.deployed import deployed_accuracy

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    try:
        compute_device("cuda")
    except DeviceError as error:
        pytest.skip(str(error))


def evaluated(supernet: str, device: str, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    words = ["supernet", "evaluate", supernet, "--data", "scenes", "--max-views", "24", "--json"]
    assert run([*words, "--device", device]) == 0
    figures: dict[str, float] = json.loads(capsys.readouterr().out)
    return figures


def test_a_gpu_finds_the_accuracy_that_the_cpu_finds(capsys: pytest.CaptureFixture[str]):
    found, expected = (evaluated("demo", device, capsys) for device in ("cuda", "cpu"))
    for name in ("miou", "miou_oracle", "one_click_miou"):
        assert found[name] == pytest.approx(expected[name], abs=1e-3)


def test_a_supernet_trained_on_a_gpu_works_on_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["supernet", "train", "demo", "--data", "scenes", "--out", str(tmp_path / "trained")]
    assert run([*words, "--steps", "3", "--device", "cuda", "--data-workers", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    trained = str(tmp_path / "trained")
    assert load_supernet(trained).weights_digest() != load_supernet("demo").weights_digest()
    before, after = (evaluated(name, "cpu", capsys)["miou"] for name in ("demo", trained))
    assert after == pytest.approx(before, abs=0.05)


def test_a_search_finds_on_a_gpu_the_accuracies_that_it_finds_on_the_cpu():
    supernet = load_supernet("demo")
    target = resolve_target(device="cpu")
    views = search_data("scenes", framing=load_manifest("demo").framing, max_views=24).search
    on_cpu, on_gpu = (
        deployed_accuracy(supernet, views, [target], device=compute_device(name))
        for name in ("cpu", "cuda")
    )
    for subnet in (supernet.space.largest, supernet.space.smallest):
        assert on_gpu(subnet) == pytest.approx(on_cpu(subnet), abs=1e-3)
