"""The supernet's benchmark at a size of seconds: every stage runs, and compares what it says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from tiny import tiny_supernet

from hwsearch.costs import encoder_params
from hwsearch.progress import SilentProgress
from hwsearch.records import LayerImportance
from hwsearch.supernet.store import SupernetManifest, load_supernet, save_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.batches import BatchSettings
from hwsearch.supernet.training.settings import TrainSettings
from supernet_study import ablation, bands, claims, figures, ranking, runs
from supernet_study.study import Study, mean_miou


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    net = tiny_supernet()
    importance = tuple(
        LayerImportance(index=i, is_global=False, miou_drop=0.1 * i, removal_probability=0.2 * i)
        for i in net.space.removal_order
    )
    net = Supernet(net.sam, net.geometry, net.space, importance)
    manifest = SupernetManifest(
        geometry=net.geometry, space=net.space, importance=importance, framing="object"
    )
    save_supernet(folder / "start", net, manifest)
    save_file(net.sam.state_dict(), folder / "base.safetensors")
    return Study(
        start=folder / "start",
        checkpoint=folder / "base.safetensors",
        data=("scenes",),
        work=folder / "work",
        rounds=(
            TrainSettings(
                steps=2,
                warmup_steps=1,
                bfloat16=False,
                batch=BatchSettings(images=1, prompts=1, min_object=8),
            ),
        ),
        search_views=4,
        final_views=4,
        outside=("scenes",),
        progress=SilentProgress(),
        proposals=2,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BANDS", (0.10, 0.25))
    monkeypatch.setattr(claims, "BANDS", (0.10, 0.25))
    monkeypatch.setattr(bands, "DRAWS", 2000)
    monkeypatch.setattr(bands, "CANDIDATES", 3)
    monkeypatch.setattr(bands, "WIDTH", 0.15)
    monkeypatch.setattr(claims, "CURVE_SHARES", {0.0: 0.0, 1.0: 1.0})
    monkeypatch.setattr(ranking, "EACH_BAND", 1)
    monkeypatch.setattr(ranking, "FEWEST", 4)
    monkeypatch.setattr(ablation, "JUDGED", 1)
    monkeypatch.setattr(ablation, "CALIBRATION_BATCHES", 1)
    monkeypatch.setattr(runs, "VALIDATION_VIEWS", 2)


def test_candidates_are_of_their_band(study: Study):
    net = load_supernet(study.start)
    full = encoder_params(net.geometry, net.space.largest)
    for band, members in bands.candidates(net, seed=0).items():
        assert 1 <= len({member.config.id for member in members}) <= 3
        for member in members:
            assert net.space.contains(member.config)
            assert band <= 1 - member.params / full < band + 0.15
            assert member.params == encoder_params(net.geometry, member.config)


def test_the_best_of_a_band_lies_in_it_and_no_worse_than_any_candidate(study: Study):
    net = load_supernet(study.start)
    members = bands.candidates(net, seed=0)[0.25]
    best = bands.best_of_band(study, net, 0.25, members)
    assert 0.25 <= 1 - best.params / encoder_params(net.geometry, net.space.largest) < 0.4
    assert best.config.resolution == net.space.largest.resolution
    found = mean_miou(net, best.config, study.search_sets)
    assert found >= max(mean_miou(net, member.config, study.search_sets) for member in members)


def test_so_many_proposals_and_finalists_are_judged(study: Study, monkeypatch: pytest.MonkeyPatch):
    net = load_supernet(study.start)
    members = bands.candidates(net, seed=0)[0.25]
    judged = []

    def counted(*arguments: object) -> float:
        judged.append(arguments)
        return mean_miou(*arguments)

    monkeypatch.setattr(bands, "mean_miou", counted)
    for proposals, finalists in ((0, 1), (3, 2)):
        judged.clear()
        sought = replace(study, proposals=proposals, finalists=finalists)
        bands.best_of_band(sought, net, 0.25, members)
        assert len(judged) == len(members) + proposals + finalists


def test_the_claims_table_compares_inherited_with_trained_subnets(study: Study):
    rows = {row["model"]: row for row in claims.claims(study)}
    assert list(rows) == [
        "base, not trained further",
        "base, fine-tuned as long",
        "supernet, largest",
        "supernet, 10 % smaller",
        "supernet, 25 % smaller",
        "supernet, smallest",
        "the box as mask",
    ]
    base = load_supernet(study.start)
    largest = base.space.largest
    by_hand = mean_miou(base, largest, study.final_sets)
    assert rows["base, not trained further"]["miou"] == pytest.approx(by_hand, abs=1e-4)
    tuned = load_supernet(study.work / "base-fine-tuned")
    tuned_by_hand = mean_miou(tuned, largest, study.final_sets)
    assert rows["base, fine-tuned as long"]["miou"] == pytest.approx(tuned_by_hand, abs=1e-4)
    baseline = rows["base, fine-tuned as long"]
    assert baseline["gain"] == 0
    assert baseline["gain_interval"] == pytest.approx((0, 0))
    for row in rows.values():
        if "gain" in row:
            assert row["gain"] == pytest.approx(row["miou"] - baseline["miou"], abs=1e-9)
    smaller = rows["supernet, 25 % smaller"]
    assert smaller["params"] <= 0.75 * rows["supernet, largest"]["params"]


def test_a_subnet_alone_trains_its_own_weights_only(study: Study):
    inherited, alone_row = claims.compared_alone(study, [0.0])
    assert inherited["subnet"] == alone_row["subnet"]
    assert inherited["miou"] != alone_row["miou"]
    base, alone = load_supernet(study.start), load_supernet(next(study.work.glob("alone-0.00-*")))
    kept = {layer.index for layer in claims.regular_subnets(base.space)[0.0].layers}
    for index in range(base.geometry.depth):
        before = base.sam.image_encoder.blocks[index].norm1.weight
        after = alone.sam.image_encoder.blocks[index].norm1.weight
        assert torch.equal(before, after) == (index not in kept)


def test_what_is_kept_is_not_done_again(study: Study):
    first = study.kept("a", lambda: {"x": 1.5})
    assert study.kept("a", lambda: pytest.fail("computed twice")) == first


def test_the_ranking_compares_each_subnet_with_itself_tuned(study: Study):
    found = ranking.ranking(study, steps=1)
    net = runs.trained_supernet(study)
    assert found["subnets"] == 4
    low, high = found["kendall_tau_interval"]
    assert low <= found["kendall_tau"] <= high
    largest = found["pairs"][0]
    assert largest["inherited"] == mean_miou(net, net.space.largest, study.search_sets)
    assert any(pair["tuned"] != pair["inherited"] for pair in found["pairs"])


def test_each_variant_of_the_ablation_is_a_training_of_its_own(study: Study):
    rows = ablation.ablation(study, steps=2, seeds=2)
    assert [row["variant"] for row in rows] == [variant.name for variant in ablation.VARIANTS]
    by_name = {row["variant"]: row for row in rows}
    assert by_name["default"]["random_gain"] == [0, 0]
    for row in rows:
        other = by_name[row["against"]]
        assert np.mean(row["largest_gain"]) == pytest.approx(row["largest"] - other["largest"])
    weights = {
        load_supernet(study.work / "ablation" / folder.name).weights_digest()
        for folder in (study.work / "ablation").iterdir()
    }
    assert len(weights) == 2 * len(rows)


def test_uniform_removal_draws_by_other_probabilities(study: Study):
    net = load_supernet(study.start)
    graded, uniform = (
        ablation._rule(net, replace(ablation.Variant("x"), graded=graded))
        for graded in (True, False)
    )
    draws = []
    for rule in (graded, uniform):
        kept = [config for seed in range(60) for config in rule(np.random.default_rng(seed))[1:-1]]
        draws.append([sum(i not in config.indices for config in kept) for i in (1, 3)])
    assert draws[0][1] > draws[0][0] + 10
    assert abs(draws[1][1] - draws[1][0]) < draws[0][1] - draws[0][0]


def test_a_second_round_goes_on_from_the_first_with_a_schedule_of_its_own(
    study: Study, tmp_path: Path
):
    first = study.rounds[0]
    longer = replace(study, work=tmp_path, rounds=(first, replace(first, seed=1)))
    net = runs.fine_tuned_base(longer)
    after_one, after_two = (
        load_supernet(tmp_path / name) for name in ("base-fine-tuned", "base-fine-tuned-2")
    )
    assert net.weights_digest() == after_two.weights_digest() != after_one.weights_digest()
    assert longer.digest != study.digest
    again = runs.fine_tuned_base(longer)
    assert again.weights_digest() == net.weights_digest()


def test_regular_subnets_of_a_band_have_equal_layers_and_lack_the_least_important(study: Study):
    net = load_supernet(study.start)
    full = encoder_params(net.geometry, net.space.largest)
    found = bands.regular(net, 0.1)
    assert found
    for member in found:
        assert net.space.contains(member.config)
        assert len({(layer.mlp_width, layer.heads) for layer in member.config.layers}) == 1
        dropped = set(range(net.geometry.depth)) - {layer.index for layer in member.config.layers}
        assert dropped == set(net.space.removal_order[: len(dropped)])
        assert 0.1 <= 1 - member.params / full < 0.25


def test_the_curves_of_two_rounds_are_drawn_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    logs = []
    for number, steps in enumerate(((1, 2), (1, 3))):
        logs.append(tmp_path / f"{number}.jsonl")
        lines = ({"step": step, "largest/mean": 0.1 * step} for step in steps)
        logs[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: drawn.append(figure))
    figures.training_curves(tmp_path / "training.png", {"base": logs})
    (line,) = drawn[0].axes[0].lines
    assert line.get_xdata().tolist() == [1, 2, 3, 5]
    assert line.get_ydata() == pytest.approx([0.1, 0.2, 0.1, 0.3])


def test_the_size_curve_is_a_picture(study: Study, tmp_path: Path):
    figures.size_curve(tmp_path / "size.png", claims.claims(study), claims.curve(study))
    assert (tmp_path / "size.png").read_bytes().startswith(b"\x89PNG")
