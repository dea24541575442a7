"""A search over precisions and targets, from its request to its result, with latencies by a law."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from listener import Listener
from tiny import GEOMETRY, SUBNETS, tiny_supernet

from hwsearch.cli.main import run
from hwsearch.cli.options import parse_target
from hwsearch.cli.search import told
from hwsearch.costs import encoder_macs
from hwsearch.data.scenes.write import write_scenes
from hwsearch.errors import HwsearchError, PredictorError, UsageError
from hwsearch.export.manifest import read_manifest
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import save_latency_predictor
from hwsearch.records import Precision, SubnetConfig, Target
from hwsearch.runtime.devices import resolve_target
from hwsearch.search.storage import open_storage
from hwsearch.workflow import prepare
from hwsearch.workflow.prepare import SearchRequest
from hwsearch.workflow.report import result_summary, summary_lines
from hwsearch.workflow.search import load_study, search_subnets
from hwsearch.workflow.targets import SearchTarget, target_here, target_of_workspace
from hwsearch.workflow.timing import Stopwatch
from hwsearch.workflow.workspace import Workspace, default_study_name

FAR = Target(device="cpu", device_name="A far board", runtime="onnxruntime", runtime_version="1.0")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def law_ms(target: Target, config: SubnetConfig) -> float:
    speed = 2.0 if target.precision == "int8" else 1.0
    return (1 + encoder_macs(GEOMETRY, config) / 1e6) / speed


def in_precision(target: Target, precision: Precision) -> Target:
    return target.model_copy(update={"precision": precision})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "data"
    write_scenes(folder, counts={"val": 2, "test": 1}, seed=1, size=(96, 128))
    return folder


@pytest.fixture(scope="module")
def predictors() -> dict[Target, LatencyPredictor]:
    """Of this machine and of a far board."""
    here = resolve_target(device="cpu", threads=1)
    configs = list(SUBNETS.values())
    return {
        target: LatencyPredictor(GEOMETRY, target, GEOMETRY.id).fit(
            configs, [law_ms(target, config) for config in configs]
        )
        for target in (in_precision(t, precision) for t in (here, FAR) for precision in PRECISIONS)
    }


@pytest.fixture
def workspace(
    tmp_path: Path,
    predictors: dict[Target, LatencyPredictor],
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """A workspace with these predictors; measuring goes by the law, and teaches nothing new."""
    place = Workspace(tmp_path / "work")
    for target, fitted in predictors.items():
        directory = place.predictor(target, GEOMETRY.id)
        save_latency_predictor(fitted, directory, noise_floor_percent=None)
    monkeypatch.setattr(LatencyPredictor, "correct", lambda self, *measured: self)

    def latencies_ms(self: Stopwatch, asked: Sequence[SubnetConfig]) -> list[float]:
        assert self.store.target.device_name != FAR.device_name
        return [law_ms(self.store.target, config) for config in asked]

    monkeypatch.setattr(Stopwatch, "latencies_ms", latencies_ms)
    return place


def request(targets: Sequence[SearchTarget], data: Path) -> SearchRequest:
    return SearchRequest(
        supernet_name="tiny",
        targets=tuple(targets),
        data=str(data),
        framing="image",
        study="both",
        trials=8,
        max_views=1,
    )


def middle_ms(target: Target) -> float:
    space = tiny_supernet().space
    return (law_ms(target, space.largest) + law_ms(target, space.smallest)) / 2


def test_a_search_over_precisions_and_two_targets(workspace: Workspace, data: Path):
    supernet, notes = tiny_supernet(), Listener()
    here = target_here(latency_ms=middle_ms(FAR), device="cpu", precisions=PRECISIONS, threads=1)
    far_ms = 0.8 * middle_ms(FAR)
    far = target_of_workspace(
        FAR.name,
        latency_ms=far_ms,
        workspace=workspace,
        supernet_id=GEOMETRY.id,
        precisions=PRECISIONS,
    )
    result = search_subnets(
        supernet, request([far, here], data), workspace=workspace, progress=notes
    )
    assert any("A-far-board" in line or "a-far-board" in line for line in notes.lines)
    assert result.precisions == PRECISIONS
    assert result.target == here.in_precision(result.pick.precision)
    (further,) = result.further_targets
    assert not further.measured_here
    assert further.target == in_precision(FAR, result.pick.precision)
    for row in result.front:
        assert row.latency_ms == law_ms(here.in_precision(row.precision), row.subnet)
        assert row.latency_ms <= here.latency_ms
        (on_board,) = row.further_targets
        assert on_board.latency_ms is None, "a prediction is never given as a measurement"
        assert on_board.upper_ms <= far_ms
    judged = load_study(workspace, "both").candidates
    assert {row.precision for row in judged} == set(PRECISIONS)


def test_a_largest_subnet_that_the_device_can_t_run_is_reported_as_such(
    workspace: Workspace, data: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where the full model does not fit into its memory: the reason to search at all."""
    here = target_here(latency_ms=middle_ms(FAR), device="cpu", threads=1)
    largest, measure = tiny_supernet().space.largest, Stopwatch.latencies_ms

    def too_large(self: Stopwatch, asked: Sequence[SubnetConfig]) -> list[float]:
        latencies_ms = measure(self, asked)
        return [
            math.inf if config == largest else latency_ms
            for config, latency_ms in zip(asked, latencies_ms, strict=True)
        ]

    monkeypatch.setattr(Stopwatch, "latencies_ms", too_large)
    result = search_subnets(tiny_supernet(), request([here], data), workspace=workspace)
    assert result.largest.latency_ms is None
    assert result.pick.latency_ms <= here.latency_ms
    words = "\n".join(summary_lines(result))
    assert "GMACs; can't be run here" in words
    assert "smaller)" in words
    summary = result_summary(result, bundle=None, report=Path("report.html"))
    assert (summary["largest"]["latency_ms"], summary["largest"]["runs"]) == (None, False)
    assert summary["pick"]["runs"]


def test_a_search_that_was_stopped_goes_on_with_the_predictor_it_began_with(
    workspace: Workspace, data: Path, monkeypatch: pytest.MonkeyPatch
):
    here = target_here(latency_ms=middle_ms(FAR), device="cpu", threads=1)
    (target,) = here.targets
    measure, calls = Stopwatch.latencies_ms, []

    def stopped(self: Stopwatch, asked: Sequence[SubnetConfig]) -> list[float]:
        calls.append(len(asked))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(self, asked)

    monkeypatch.setattr(Stopwatch, "latencies_ms", stopped)
    with pytest.raises(KeyboardInterrupt):
        search_subnets(tiny_supernet(), request([here], data), workspace=workspace)
    slip = target_here(latency_ms=middle_ms(FAR) + 1, device="cpu", threads=1)
    with pytest.raises(UsageError, match="another target latency"):
        search_subnets(tiny_supernet(), request([slip], data), workspace=workspace)
    configs = list(SUBNETS.values())
    other = LatencyPredictor(GEOMETRY, target, GEOMETRY.id).fit(
        configs, [3 * law_ms(target, config) for config in configs]
    )
    directory = workspace.predictor(target, GEOMETRY.id)
    save_latency_predictor(other, directory, noise_floor_percent=None)
    search_subnets(tiny_supernet(), request([here], data), workspace=workspace)
    for row in load_study(workspace, "both").candidates:
        assert row.predicted_ms == pytest.approx(law_ms(target, row.subnet), rel=0.5)
    assert not workspace.study_predictors("both").exists()


def test_a_predictor_that_a_stopped_search_can_t_use_any_longer_is_named(
    workspace: Workspace, data: Path, predictors: dict[Target, LatencyPredictor]
):
    here = target_here(latency_ms=middle_ms(FAR), device="cpu", threads=1)
    (target,) = here.targets
    old = target.model_copy(update={"runtime_version": "0.1"})
    fitted = LatencyPredictor(GEOMETRY, old, GEOMETRY.id)
    fitted.fit(predictors[target].configs_, predictors[target].latencies_ms_)
    kept = workspace.study_predictors("both") / target.name
    save_latency_predictor(fitted, kept, noise_floor_percent=None)
    with pytest.raises(PredictorError, match=r"Study both was interrupted.*delete .*both"):
        search_subnets(tiny_supernet(), request([here], data), workspace=workspace)


def test_a_storage_that_can_t_be_used_is_told_of_before_anything_is_measured(
    workspace: Workspace, data: Path, monkeypatch: pytest.MonkeyPatch
):
    here = target_here(latency_ms=1.0, device="cpu", threads=1)
    monkeypatch.setattr("hwsearch.workflow.prepare.search_latencies", pytest.fail)
    nonsense = dataclasses.replace(request([here], data), storage="nonsense")
    with pytest.raises(UsageError, match="study storage 'nonsense' can't be used"):
        search_subnets(tiny_supernet(), nonsense, workspace=workspace)


def test_a_workspace_may_have_any_name(tmp_path: Path):
    for name in ("a?b", "a%20b", "a b#c"):
        place = Workspace(tmp_path / name)
        open_storage(place.storage)
        assert (place.root / "studies" / "studies.db").exists()


def test_what_a_study_is_called_tells_its_target_apart():
    words = ("cpu=40ms", "cpu:threads=1=40ms", "cpu:runtime=openvino=40ms", "cpu=41ms")
    names = [default_study_name("demo", "scenes", [told(parse_target(word), 1)]) for word in words]
    assert names[0] == "demo-scenes-40ms"
    assert len(set(names)) == len(names)
    eight_bits = default_study_name("demo", "scenes", ["40ms"], ["int8"])
    assert eight_bits != default_study_name("demo", "scenes", ["40ms"], ["fp32"]) == names[0]


def test_precisions_of_one_study_can_not_be_changed(workspace: Workspace, data: Path):
    limit_ms = middle_ms(FAR)
    alone = target_here(latency_ms=limit_ms, device="cpu", threads=1)
    search_subnets(tiny_supernet(), request([alone], data), workspace=workspace)
    both = target_here(latency_ms=limit_ms, device="cpu", precisions=PRECISIONS, threads=1)
    with pytest.raises(UsageError, match="choose another name"):
        search_subnets(tiny_supernet(), request([both], data), workspace=workspace)


def test_an_infeasible_target_ends_with_three_and_says_what_binds(
    workspace: Workspace,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    from hwsearch.supernet import store

    manifest = store.load_manifest("demo")
    monkeypatch.setattr(store, "load_supernet", lambda name: tiny_supernet())
    monkeypatch.setattr(
        store, "load_manifest", lambda name: manifest.model_copy(update={"geometry": GEOMETRY})
    )
    command = ["search", "--data", str(data), "--workspace", str(workspace.root)]
    command += ["--target", "cpu:threads=1=0.9ms", "--target", f"{FAR.name}=900ms"]
    assert run([*command, "--json"]) == 3
    printed = capsys.readouterr()
    why = json.loads(printed.out)["infeasible"]
    nearest_ms = law_ms(FAR, SubnetConfig.model_validate(why["nearest"]["subnet"]))
    assert nearest_ms <= law_ms(FAR, tiny_supernet().space.smallest)
    near, far = why["distances"]
    assert why["binding_target"] == near["target"]
    assert near["over_percent"] == pytest.approx(100 * (nearest_ms / 0.9 - 1))
    assert (near["measured"], far["measured"]) == (True, False)
    assert far["over_percent"] < 0
    assert why["binding_choice"] in ("resolution", "depth", "MLP widths", "heads")
    assert "what binds is the space's" in printed.err
    assert "Traceback" not in printed.err
    assert run(command) == 3
    assert capsys.readouterr().out == ""


def test_an_int8_pick_is_exported_as_it_was_searched(
    workspace: Workspace, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from hwsearch.export.engines import EngineOptions
    from hwsearch.workflow.export import export_pick

    supernet = tiny_supernet()
    both = target_here(
        latency_ms=0.6 * middle_ms(FAR), device="cpu", precisions=PRECISIONS, threads=1
    )
    result = search_subnets(supernet, request([both], data), workspace=workspace)
    number = next(n for n, row in enumerate(result.front) if row.precision == "int8")
    chosen = result.front[number]
    timed: list[str] = []

    def time_files(self: Stopwatch, subject: object) -> None:
        assert self.store.target.precision == "int8"
        timed.append(subject.encoder.name)

    monkeypatch.setattr(Stopwatch, "time_files", time_files)
    bundle = export_pick(
        supernet, "both", workspace=workspace, out=tmp_path / "bundle", pick=number
    )
    manifest = read_manifest(bundle)
    assert timed == [manifest.encoder_file] == ["encoder-int8.onnx"]
    assert manifest.accuracy is not None
    assert manifest.accuracy.miou == chosen.miou_final
    with pytest.raises(UsageError, match="no engine"):
        export_pick(
            supernet,
            "both",
            workspace=workspace,
            out=tmp_path / "other",
            pick=number,
            engines=EngineOptions(),
        )


def test_accuracies_are_found_where_the_request_says(
    workspace: Workspace, data: Path, monkeypatch: pytest.MonkeyPatch
):
    """torch's `meta` device computes shapes alone, and stands for a GPU."""
    monkeypatch.setattr(prepare, "compute_device", torch.device)
    here = target_here(latency_ms=middle_ms(FAR), device="cpu", threads=1)
    wanted = dataclasses.replace(request([here], data), evaluate_on="meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        search_subnets(tiny_supernet(), wanted, workspace=workspace)


def test_a_device_that_would_evaluate_nothing_is_told_of(data: Path, tmp_path: Path):
    here = target_here(latency_ms=40, device="cpu", threads=1, precisions=["int8"])
    wanted = dataclasses.replace(request([here], data), evaluate_on="cpu")
    assert wanted.precisions == ("int8",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "compute_device", lambda name: torch.device("meta"))
        with pytest.raises(UsageError, match="leave --evaluate-on out"):
            search_subnets(tiny_supernet(), wanted, workspace=Workspace(tmp_path / "new"))


@pytest.mark.parametrize(
    ("name", "error"), [("gpu", "not on 'gpu'"), ("cuda:512", r"no CUDA device|no cuda:512")]
)
def test_a_device_that_is_not_there_is_told_of_before_anything_is_measured(
    data: Path, tmp_path: Path, name: str, error: str
):
    place = Workspace(tmp_path / "new")
    here = target_here(latency_ms=40, device="cpu", threads=1)
    wanted = dataclasses.replace(request([here], data), evaluate_on=name)
    with pytest.raises(HwsearchError, match=error):
        search_subnets(tiny_supernet(), wanted, workspace=place)
    assert not place.profiles.exists()
