"""The benchmark on public latencies, on a small set of a known law in HAT's form."""

import json
from pathlib import Path

import numpy as np
import pytest

import bench_public_latency
from hwsearch.errors import DataError, HwsearchError, UsageError
from latency_study import hat
from latency_study.figures import error_of_share, front

NAMES = (
    "encoder_embed_dim,encoder_layer_num,encoder_ffn_embed_dim_avg,"
    "encoder_self_attention_heads_avg,decoder_embed_dim,decoder_layer_num,"
    "decoder_ffn_embed_dim_avg,decoder_self_attention_heads_avg,"
    "decoder_ende_attention_heads_avg,decoder_arbitrary_ende_attn_avg,"
    "latency_mean_encoder,latency_mean_decoder,latency_std_encoder,latency_std_decoder"
)
MODELS = {
    "default",
    "operator_mean",
    "operator_sum",
    "operator_ridge",
    "operator_process",
    "constant",
    "weights_only",
    "raw_forest",
    "raw_boosting",
    "raw_mlp",
    "sized_boosting",
    "sized_ridge",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty architectures whose decoder takes most of the time, with two per cent of noise."""
    rng = np.random.default_rng(0)
    lines = [NAMES]
    for _ in range(60):
        enc, dec = rng.choice([512, 640], 2)
        layers, ffn, heads, cross, span = (
            rng.integers(1, 7),
            *rng.uniform([1024, 2, 2, 1], [3072, 8, 8, 3]),
        )
        encoder = 3 + 6 * enc / 200
        decoder = (20 + layers * (15 + dec * ffn / 2e5 + 2 * span)) * np.exp(0.02 * rng.normal())
        row = (enc, 6, 2048, 8, dec, layers, ffn, heads, cross, span, encoder, decoder, 0.1, 0.2)
        lines.append(",".join(map(str, row)))
    path = tmp_path_factory.mktemp("hat")
    (path / "toy.csv").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hat, "HELD_OUT", 30)
    monkeypatch.setattr(hat, "SPLITS", 1)


def test_rows_have_the_asked_form_and_the_default_wins(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    bench_public_latency.main(data=folder, sizes="24", as_json=True)
    found = json.loads(capsys.readouterr().out)
    rows = {row["model"]: row for row in found["rows"]}
    assert set(rows) == MODELS
    for row in rows.values():
        assert set(row) == {"set", "model", "n", "mape", "within_5", "within_10", "kendall_tau"}
        assert (row["set"], row["n"]) == ("toy", 24)
    assert rows["default"]["mape"] < 4
    assert rows["default"]["within_10"] > 90
    assert rows["default"]["mape"] < min(rows[name]["mape"] for name in MODELS if "raw" in name)
    assert rows["constant"]["kendall_tau"] is None
    assert found["conditions"]["splits"] == 1
    (intervals,) = found["intervals"]
    assert set(intervals["chosen"]) <= MODELS
    assert 60 <= intervals["covered"] <= 100


def test_features_do_not_know_the_order_of_the_rows(folder: Path):
    (data,) = hat.read_sets(folder)
    turned = data.builder.matrix(data.table[::-1])
    assert np.array_equal(turned[::-1], data.builder.matrix(data.table))
    assert data.latencies_ms[0] == pytest.approx(sum(_first_row(folder)[10:12]))


def test_splits_differ_and_do_not_overlap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hat, "SPLITS", 3)
    found = list(hat.splits(100, 40, seed=0))
    assert all(len(train) == 40 and len(test) == 30 for train, test in found)
    assert not any(set(train) & set(test) for train, test in found)
    assert len({tuple(sorted(test)) for _, test in found}) == 3


def test_the_front_holds_what_nothing_beats():
    latencies = np.array([3.0, 1.0, 2.0, 2.0, 4.0])
    sizes = np.array([5.0, 1.0, 4.0, 3.0, 5.0])
    assert sorted(front(latencies, sizes).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("of_draws", [0.0, 0.5])
def test_the_error_of_a_share_is_how_far_the_share_is_off(of_draws: float):
    """Subnets are held more or less often, draws hold more or less; fronts differ in size."""
    rng = np.random.default_rng(0)
    shares, errors = [], []
    for _ in range(60):
        subnets = rng.standard_normal(150)
        draws = []
        for _ in range(24):
            rows = rng.permutation(150)[: rng.integers(10, 30)]
            noise = of_draws * rng.standard_normal() + 0.3 * rng.standard_normal(len(rows))
            draws.append((rows, subnets[rows] + noise < 1.3))
        shares.append(100 * np.mean([held.mean() for _, held in draws]))
        errors.append(error_of_share(draws))
    assert np.mean(errors) == pytest.approx(np.std(shares), rel=0.25)


def test_a_share_of_all_tells_no_error():
    assert error_of_share([(np.arange(4), np.ones(4, dtype=bool))]) is None


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", f"{NAMES}\n", f"{NAMES}\n{'x,' * 13}x\n"])
def test_a_file_of_another_form_is_a_sentence(tmp_path: Path, content: str):
    (tmp_path / "set.csv").write_text(content)
    with pytest.raises(HwsearchError, match=r"set\.csv"):
        hat.read_sets(tmp_path)


def test_a_file_that_is_no_text_is_a_sentence(tmp_path: Path):
    (tmp_path / "set.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"set\.csv is no text"):
        hat.read_sets(tmp_path)


def test_a_folder_without_sets_is_a_sentence(tmp_path: Path):
    with pytest.raises(DataError, match="no CSV file"):
        hat.read_sets(tmp_path)


@pytest.mark.parametrize("sizes", ["31", "many", "7"])
def test_sizes_that_can_not_be_used_are_a_sentence(folder: Path, sizes: str):
    with pytest.raises(UsageError, match=r"31|many|7"):
        bench_public_latency.main(data=folder, sizes=sizes)


def _first_row(folder: Path) -> list[float]:
    return [float(word) for word in (folder / "toy.csv").read_text().splitlines()[1].split(",")]
