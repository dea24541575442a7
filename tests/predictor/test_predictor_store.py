"""A stored predictor comes back as it was, or not at all; its card says what it is."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
from synthetic import TARGET, sampled

from hwsearch.errors import PredictorError
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import load_latency_predictor, save_latency_predictor

OTHER = TARGET.model_copy(update={"runtime_version": "2.0"})
SHIPPED = Path(__file__).parents[2] / "predictors"


@pytest.fixture
def folder(predictor: LatencyPredictor, tmp_path: Path) -> Path:
    path = tmp_path / "cpu-test" / "custom-1"
    save_latency_predictor(predictor, path, noise_floor_percent=1.4)
    return path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_round_trip_keeps_every_prediction(predictor: LatencyPredictor, folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_latency_predictor(folder, target=TARGET)
    configs = sampled(100, seed=8)
    assert np.array_equal(loaded.predict(configs), predictor.predict(configs))
    assert np.array_equal(loaded.upper(configs, 0.95), predictor.upper(configs, 0.95))
    assert loaded.choice_ == predictor.choice_
    assert (loaded.geometry, loaded.target, loaded.supernet_id, loaded.scope, loaded.seed) == (
        predictor.geometry,
        predictor.target,
        predictor.supernet_id,
        predictor.scope,
        predictor.seed,
    )


@pytest.mark.usefixtures("one_repeat")
def test_a_loaded_predictor_can_be_corrected(folder: Path):
    loaded = load_latency_predictor(folder)
    extra = sampled(4, seed=77)
    corrected = loaded.correct(extra, 2 * loaded.predict(extra))
    assert corrected.cv_.n == loaded.cv_.n + 4


def test_another_target_is_refused_unless_a_stale_predictor_is_allowed(folder: Path):
    with pytest.raises(PredictorError, match=r"runtime_version 1.0 is now 2.0.*--allow-stale"):
        load_latency_predictor(folder, target=OTHER)
    with pytest.warns(UserWarning, match=r"stale predictor is used.*1.0 is now 2.0"):
        loaded = load_latency_predictor(folder, target=OTHER, allow_stale=True)
    assert loaded.target == TARGET


def test_a_deviating_refit_warns_and_names_both_versions(folder: Path):
    path = folder / "predictor.json"
    stored = json.loads(path.read_text())
    probes = [1.02 * stored["probes_ms"][0], *stored["probes_ms"][1:]]
    edit(path, probes_ms=probes, versions={"scikit-learn": "0.1"})
    with pytest.warns(UserWarning, match=rf"2\.0 %.*scikit-learn 0\.1;.*{sklearn.__version__}"):
        load_latency_predictor(folder)


@pytest.mark.parametrize("name", ["predictor.json", "training.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe\x00", b'{"rows": 3}'])
def test_a_missing_or_damaged_file_is_a_sentence(folder: Path, name: str, content: bytes | None):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(PredictorError, match=name) as caught:
        load_latency_predictor(folder)
    assert "fit" in str(caught.value).lower()


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"target_fingerprint": "0" * 12},
        {"training_sha256": "0" * 64},
        {"models_sha256": None},
        {"models_sha256": "0" * 64},
        {"probes_ms": [1.0]},
        {"seed": "many"},
        {"surprise": 1},
    ],
)
def test_a_file_that_contradicts_itself_is_refused(folder: Path, changes: dict[str, object]):
    edit(folder / "predictor.json", **changes)
    with pytest.raises(PredictorError, match="Fit the latency predictor again"):
        load_latency_predictor(folder)


@pytest.mark.parametrize(
    ("name", "hyper", "fault"),
    [
        ("operator_ridge", {}, "alpha"),
        ("operator_ridge", {"alpha": -1.0}, "alpha"),
        (
            "operator_process",
            {"amplitude": 1.0, "length_scale": 1.0, "noise": math.nan},
            "predicts no numbers",
        ),
    ],
)
def test_hyper_parameters_that_a_model_can_t_have_are_a_sentence(
    folder: Path, name: str, hyper: dict[str, float], fault: str
):
    path = folder / "predictor.json"
    choice = json.loads(path.read_text())["choice"]
    edit(path, choice={**choice, "model_name": name, "hyper": hyper})
    with pytest.raises(
        PredictorError, match=rf"{fault}.*(?<!\.)\. Fit the latency predictor again"
    ):
        load_latency_predictor(folder)


def test_a_file_without_errors_is_a_sentence(folder: Path):
    path = folder / "predictor.json"
    choice = json.loads(path.read_text())["choice"]
    edit(path, choice={**choice, "log_residuals": []})
    with pytest.raises(PredictorError, match="stored errors"):
        load_latency_predictor(folder)


@pytest.mark.usefixtures("one_repeat")
def test_an_interrupted_save_is_not_mixed_with_the_old_one(
    predictor: LatencyPredictor, folder: Path, tmp_path: Path
):
    extra = sampled(2, seed=78)
    corrected = predictor.correct(extra, predictor.predict(extra))
    save_latency_predictor(corrected, tmp_path / "new")
    (folder / "training.json").write_bytes((tmp_path / "new" / "training.json").read_bytes())
    with pytest.raises(PredictorError, match=r"training.json.*predictor.json"):
        load_latency_predictor(folder)


def test_an_unfitted_predictor_is_not_stored(predictor: LatencyPredictor, tmp_path: Path):
    unfitted = LatencyPredictor(predictor.geometry, TARGET, "custom-1")
    with pytest.raises(PredictorError, match="not fitted"):
        save_latency_predictor(unfitted, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_can_not_be_written_is_a_sentence(
    predictor: LatencyPredictor, tmp_path: Path
):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PredictorError, match="can't be written"):
        save_latency_predictor(predictor, tmp_path / "file" / "folder")


def test_training_rows_are_one_a_line(predictor: LatencyPredictor, folder: Path):
    lines = (folder / "training.json").read_text().splitlines()
    assert len(lines) == len(predictor.configs_) + 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "CARD.md",
        "predictor.json",
        "scatter.svg",
        "training.json",
    ]


def test_the_card_tells_conditions_errors_and_use(predictor: LatencyPredictor, folder: Path):
    card = (folder / "CARD.md").read_text()
    cv = predictor.cv_
    for fact in (
        TARGET.device_name,
        "onnxruntime 1.0",
        TARGET.fingerprint,
        "| subnets measured | 32 |",
        f"gives the error to expect: **{cv.mape_percent:.2f} %**",
        f"**{predictor.model_name_}** (chosen) | ",
        "![Predicted against measured latency](scatter.svg)",
        *(f"| {score.name} | {score.mape_percent:.2f} %" for score in cv.baselines),
        "Noise floor: 1.40 %",
        'load_latency_predictor("predictors/cpu-test/custom-1")',
    ):
        assert fact in card
    assert str(folder) not in card


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*/*/predictor.json")), ids=str)
def test_what_is_shipped_loads_and_predicts(path: Path):
    loaded = load_latency_predictor(path.parent)
    assert loaded.predict(loaded.configs_) == pytest.approx(loaded.latencies_ms_, rel=0.2)


def test_the_reference_targets_have_predictors():
    assert len([*SHIPPED.glob("*/*/predictor.json")]) >= 4


def test_the_card_admits_an_unknown_noise_floor(predictor: LatencyPredictor, tmp_path: Path):
    save_latency_predictor(predictor, tmp_path)
    assert "Noise floor: unknown" in (tmp_path / "CARD.md").read_text()
