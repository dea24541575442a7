"""The fit stage reads a profile, starts from another predictor where asked, and writes both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from listener import Listener
from tiny import tiny_supernet

from hwsearch.cli.main import run
from hwsearch.costs import encoder_macs
from hwsearch.errors import PredictorError, ProfileError
from hwsearch.predictor import crossvalidation
from hwsearch.predictor.store import load_latency_predictor
from hwsearch.profiles import ProfileStore
from hwsearch.records import Measurement, SubnetConfig, Target
from hwsearch.runtime.devices import resolve_target
from hwsearch.supernet.store import SupernetManifest, save_supernet
from hwsearch.workflow.fit import fit_latency_predictor
from hwsearch.workflow.workspace import Workspace

SUPERNET = tiny_supernet()
GEOMETRY = SUPERNET.geometry
TWO = Target(
    device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1", threads=2
)
ONE = TWO.model_copy(update={"threads": 1})


@pytest.fixture(autouse=True)
def _one_repeat(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crossvalidation, "REPEATS", 1)


def subnets(count: int, *, seed: int) -> list[SubnetConfig]:
    rng = np.random.default_rng(seed)
    found: dict[SubnetConfig, None] = {}
    while len(found) < count:
        found[SUPERNET.space.sample(rng)] = None
    return list(found)


def measure(
    workspace: Workspace,
    target: Target,
    configs: Sequence[SubnetConfig],
    *,
    drifted: int = 0,
    error: str | None = None,
    factors: Sequence[float] | None = None,
) -> None:
    """Latencies by MACs and depth, the last `drifted` of them marked; or an error in each place.

    `factors` is what each came out too slow by.
    """
    store = ProfileStore(workspace.profiles, target)
    slowed_by = [1.0] * len(configs) if factors is None else factors
    for place, config in enumerate(configs):
        law = (1 + encoder_macs(GEOMETRY, config) / 1e6 + config.depth) * 3 / target.threads
        encoder_ms = law * float(slowed_by[place])
        store.append(
            Measurement(
                supernet_id=GEOMETRY.id,
                subnet_id=config.id,
                subnet=config,
                target=target,
                session_id="s",
                encoder_ms=None if error else encoder_ms,
                decoder_ms=None if error else 0.5,
                error=error,
                drifted=place >= len(configs) - drifted,
            )
        )


def test_a_new_target_starts_from_another_ones_predictor(tmp_path: Path):
    workspace = Workspace(tmp_path)
    measure(workspace, TWO, subnets(14, seed=0))
    _, source = fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace)
    measure(workspace, ONE, subnets(6, seed=1))
    with pytest.raises(PredictorError, match="6 distinct subnets: profile at least 8"):
        fit_latency_predictor(GEOMETRY, target=ONE, workspace=workspace)
    _, directory = fit_latency_predictor(
        GEOMETRY, target=ONE, workspace=workspace, transfer_from=source
    )
    loaded = load_latency_predictor(directory, target=ONE)
    assert loaded.model_name_ == "transfer_affine"
    assert loaded.source.target == TWO
    assert len(loaded.configs_) == 6


def test_marked_measurements_count_where_too_few_others_are_there(tmp_path: Path):
    workspace = Workspace(tmp_path)
    measure(workspace, TWO, subnets(10, seed=2), drifted=4)
    predictor, _ = fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace)
    assert len(predictor.configs_) == 10
    measure(workspace, ONE, subnets(10, seed=2), drifted=2)
    predictor, _ = fit_latency_predictor(GEOMETRY, target=ONE, workspace=workspace)
    assert len(predictor.configs_) == 8


def test_marked_measurements_that_had_to_do_are_told_of(tmp_path: Path):
    workspace, listener = Workspace(tmp_path), Listener()
    measure(workspace, TWO, subnets(10, seed=2), drifted=4)
    fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace, progress=listener)
    assert "only 6 of 10 subnets" in " ".join(listener.lines)


def test_a_predictor_that_a_line_beats_is_told_of(tmp_path: Path):
    workspace, listener = Workspace(tmp_path), Listener()
    rng = np.random.default_rng(0)
    drawn = subnets(12, seed=3)
    measure(workspace, TWO, drawn, factors=np.exp(rng.standard_normal(len(drawn))))
    fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace, progress=listener)
    assert any("the predictor by" in line and "more subnets" in line for line in listener.lines)
    listener.lines.clear()
    measure(workspace, ONE, drawn)
    fit_latency_predictor(GEOMETRY, target=ONE, workspace=workspace, progress=listener)
    assert not listener.lines


def test_too_few_measurements_are_not_laid_on_the_machine(tmp_path: Path):
    workspace, listener = Workspace(tmp_path), Listener()
    measure(workspace, TWO, subnets(3, seed=2))
    with pytest.raises(PredictorError, match="3 distinct subnets"):
        fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace, progress=listener)
    assert not listener.lines


def test_the_command_tells_of_marked_measurements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    here = resolve_target(device="cpu", threads=1)
    measure(Workspace(tmp_path), here, subnets(10, seed=2), drifted=4)
    supernet = tmp_path / "supernet"
    save_supernet(supernet, SUPERNET, SupernetManifest(geometry=GEOMETRY, space=SUPERNET.space))
    command = ["fit", "--device", "cpu", "--threads", "1", "--workspace", str(tmp_path)]
    assert run([*command, "--supernet", str(supernet)]) == 0
    assert "only 6 of 10 subnets" in capsys.readouterr().err


def test_a_stale_profile_makes_a_stale_predictor(tmp_path: Path):
    """What was measured under another version is not passed off as this version's."""
    workspace = Workspace(tmp_path)
    measure(workspace, TWO, subnets(10, seed=2))
    updated = TWO.model_copy(update={"runtime_version": "2"})
    with pytest.raises(ProfileError, match="runtime_version 1 there, 2 here"):
        fit_latency_predictor(GEOMETRY, target=updated, workspace=workspace)
    predictor, directory = fit_latency_predictor(
        GEOMETRY, target=updated, workspace=workspace, allow_stale=True
    )
    assert predictor.target == TWO
    with pytest.raises(PredictorError, match="runtime_version 1 is now 2"):
        load_latency_predictor(directory, target=updated)


def test_a_target_s_own_predictor_is_no_start(tmp_path: Path):
    """It saw the rows that cross-validation holds out, so that the error would flatter."""
    workspace = Workspace(tmp_path)
    configs = subnets(14, seed=0)
    measure(workspace, TWO, configs[:10])
    _, own = fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace)
    measure(workspace, TWO, configs[10:])
    with pytest.raises(PredictorError, match="itself fitted on measurements of this target"):
        fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace, transfer_from=own)


def test_where_all_failed_the_reason_is_told(tmp_path: Path):
    workspace = Workspace(tmp_path)
    measure(workspace, TWO, subnets(3, seed=0), error="killed: memory ran out")
    with pytest.raises(ProfileError, match=r"None of 3 subnets .* memory ran out"):
        fit_latency_predictor(GEOMETRY, target=TWO, workspace=workspace)


def test_nothing_measured_is_a_sentence(tmp_path: Path):
    with pytest.raises(ProfileError, match=r"No subnet of .* was measured on"):
        fit_latency_predictor(GEOMETRY, target=TWO, workspace=Workspace(tmp_path))


def test_the_command_names_a_source_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = tmp_path / "nothing"
    command = ["fit", "--device", "cpu", "--workspace", str(tmp_path)]
    code = run([*command, "--transfer-from", str(missing)])
    assert code == 1
    assert "There is no latency predictor in" in capsys.readouterr().err
