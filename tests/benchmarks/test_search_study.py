"""The restricted space, its table, and the comparison of samplers on it."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwsearch.costs import encoder_macs
from hwsearch.errors import DataError, UsageError
from hwsearch.progress import SilentProgress
from hwsearch.records import Conditions, SubnetConfig, Target
from hwsearch.search.pareto import hypervolume
from hwsearch.supernet.store import load_manifest
from search_study.compare import (
    Comparison,
    evaluations_to,
    limited_summary,
    shares,
    speed_ups,
    summary,
)
from search_study.figures import hypervolume_curves
from search_study.restricted import restricted_space
from search_study.samplers import DEFAULT, all_samplers, distinct
from search_study.table import (
    AccuracyConditions,
    LatencyConditions,
    SearchTable,
    choice_columns,
    load_table,
    reference_point,
    save_table,
)
from search_study.targets import search_targets, targets_summary

MANIFEST = load_manifest("demo")


def made_up_table(groups: int) -> SearchTable:
    """A table of the demo's space: accuracy grows with what is kept, latency with MACs."""
    restricted = restricted_space(MANIFEST.space, groups=groups)
    members = tuple(restricted.members())
    subnets = [restricted.expand(member) for member in members]
    noise = np.random.default_rng(0).standard_normal((2, len(members)))
    gmacs = np.array([encoder_macs(MANIFEST.geometry, subnet) / 1e9 for subnet in subnets])
    latencies = (1.5 + 20 * gmacs) * np.exp(0.01 * noise[0])
    mious = np.array([_law(subnet) for subnet in subnets]) + 0.001 * noise[1]
    return SearchTable(
        supernet_id="demo",
        weights_digest="aa",
        geometry=MANIFEST.geometry,
        restricted=restricted,
        accuracy=AccuracyConditions(
            data="made up", data_fingerprint="bb", split="val", framing="object", views=1, objects=1
        ),
        latency=LatencyConditions(
            target=Target(
                device="cpu", device_name="Test", runtime="onnxruntime", runtime_version="1"
            ),
            noise_floor_percent=None,
            marked=0,
            conditions=Conditions(timestamp="now", versions={}, cpu="Test", cores=1),
        ),
        choices=choice_columns(restricted, members),
        mious=tuple(mious.tolist()),
        latencies_ms=tuple(latencies.tolist()),
    )


def _law(subnet: SubnetConfig) -> float:
    kept = {layer.index: layer for layer in subnet.layers}
    lost = 0.04 * (1 - subnet.resolution / 256)
    for rank, index in enumerate([*MANIFEST.space.removal_order, 0], start=1):
        layer = kept.get(index)
        narrow = 1.0 if layer is None else 1 - (layer.mlp_width / 768 + layer.heads / 6) / 2
        lost += 0.0016 * rank * narrow**1.5
    return 0.7 - lost


@pytest.fixture(scope="module")
def table():
    return made_up_table(3)


def test_members_are_subnets_of_the_supernet_down_to_the_smallest_layers():
    restricted = restricted_space(MANIFEST.space)
    members = list(restricted.members())
    assert 1000 <= len(members) == restricted.space.size <= 4000
    subnets = {restricted.expand(member) for member in members}
    assert len(subnets) == len(members)
    for subnet in subnets:
        MANIFEST.space.validate_config(subnet)
    assert MANIFEST.space.largest in subnets
    assert MANIFEST.space.smallest in subnets


def test_the_least_important_layers_are_in_the_group_that_goes_first():
    restricted = restricted_space(MANIFEST.space)
    assert set(restricted.groups[-1]) == set(MANIFEST.space.removal_order[:3])
    assert restricted.groups[0][0] == 0
    assert restricted.space.removal_order[0] == len(restricted.groups) - 1


@pytest.mark.parametrize("groups", [1, 6, 13])
def test_a_space_that_cannot_be_cut_so_is_refused(groups: int):
    with pytest.raises(UsageError, match="groups"):
        restricted_space(MANIFEST.space, groups=groups)


def test_a_table_comes_back_from_its_file_and_gives_the_same_bytes(
    table: SearchTable, tmp_path: Path
):
    first, second = tmp_path / "a.json.gz", tmp_path / "b.json.gz"
    save_table(table, first)
    save_table(load_table(first), second)
    assert load_table(first) == table
    assert first.read_bytes() == second.read_bytes()
    assert [table.rows[member] for member in table.members] == list(range(len(table.mious)))


@pytest.mark.parametrize(
    "content", [b"nonsense", gzip.compress(b"{}", mtime=0), None], ids=["noise", "empty", "absent"]
)
def test_what_is_no_table_is_one_sentence(tmp_path: Path, content: bytes | None):
    path = tmp_path / "table.json.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="table") as caught:
        load_table(path)
    assert "\n" not in str(caught.value)


def test_a_table_that_lacks_a_member_is_refused(table: SearchTable):
    short = table.model_dump() | {
        "mious": table.mious[1:],
        "latencies_ms": table.latencies_ms[1:],
        "choices": {name: column[1:] for name, column in table.choices.items()},
    }
    with pytest.raises(ValueError, match="each of the"):
        SearchTable.model_validate(short)


def test_repetitions_are_not_counted_and_end_a_run_that_has_nothing_new():
    assert distinct(iter([3, 3, 1, 3, 2, 5]), 3) == [3, 1, 2]
    assert distinct(iter([4] * 10_000), 3) == [4]


@pytest.mark.parametrize(
    "name", [DEFAULT, "random", "tpe", "nsga2, population 10", "nsga3, population 20"]
)
@pytest.mark.parametrize("limit_share", [None, 0.4])
def test_samplers_judge_members_in_a_repeatable_order(
    table: SearchTable, name: str, limit_share: float | None
):
    limit_ms = None if limit_share is None else limit_share * max(table.latencies_ms)
    one, same = (distinct(all_samplers()[name](table, 3, limit_ms), 25) for _ in range(2))
    assert one == same
    assert len(set(one)) == 25


def test_evolution_with_a_limit_goes_where_it_is_kept(table: SearchTable):
    limit_ms = 0.25 * max(table.latencies_ms)
    for name in ("pymoo nsga2, population 10", "nsga2, population 10"):
        judged = distinct(all_samplers()[name](table, 0, limit_ms), 100)
        kept = table.points[judged, 1] <= limit_ms
        assert kept[-30:].mean() > kept[:10].mean()


def test_shares_end_at_one_when_all_are_judged(table: SearchTable):
    curve = shares(table, range(len(table.mious)))
    assert (np.diff(curve) >= 0).all()
    assert curve[-1] == pytest.approx(1.0)
    reference = reference_point(table)
    half = range(len(table.mious) // 2)
    expected = hypervolume(table.points[list(half)], reference)
    assert curve[len(half) - 1] == pytest.approx(expected / hypervolume(table.points, reference))


def test_evaluations_to_a_share_are_the_median_of_those_that_arrive():
    arrive = [np.array([0.5, 0.995, 1.0]), np.array([0.99, 1.0]), np.array([0.5, 0.6])]
    assert evaluations_to(arrive, 0.99) == 2
    assert evaluations_to(arrive[2:], 0.99) is None


@pytest.fixture(scope="module")
def runs(table: SearchTable, tmp_path_factory: pytest.TempPathFactory):
    work = tmp_path_factory.mktemp("runs")
    names = (DEFAULT, "nsga2, population 10")

    def run(limit_ms: float | None = None) -> dict[str, list[list[int]]]:
        return Comparison(table, names, 2, limit_ms, 60, work, SilentProgress()).run(jobs=1)

    return run


Runs = Callable[..., dict[str, list[list[int]]]]


def test_the_default_needs_fewer_evaluations_than_evolution(
    table: SearchTable, runs: Runs, tmp_path: Path
):
    found = runs()
    assert runs() == found  # from what was kept
    rows = [row for row in summary(table, found) if row["evaluations"] == 40]
    ratios = {row["sampler"]: row["hypervolume_ratio"] for row in rows}
    assert ratios[DEFAULT] > 0.99
    assert ratios[DEFAULT] > ratios["nsga2, population 10"]
    factors = [row["factor"] for row in speed_ups(table, found)]
    assert min(factors) > 1.5
    hypervolume_curves(tmp_path / "curves.png", table, found)
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_within_a_limit_the_default_comes_near_the_best(table: SearchTable, runs: Runs):
    limit_ms = 0.4 * max(table.latencies_ms)
    rows = limited_summary(table, runs(limit_ms), limit_ms=limit_ms)
    ours = {r["evaluations"]: r["points_lacking_at_worst"] for r in rows if r["sampler"] == DEFAULT}
    assert ours[40] <= 0.3
    assert ours[40] <= ours[20]


def test_an_unknown_sampler_is_refused(table: SearchTable, tmp_path: Path):
    with pytest.raises(UsageError, match="There is no sampler 'best'"):
        Comparison(table, ("best",), 1, None, 10, tmp_path, SilentProgress())


@pytest.mark.slow
def test_the_pick_for_a_target_meets_it_and_is_near_the_best(table: SearchTable, tmp_path: Path):
    (row,) = rows = search_targets(
        table,
        shares=(0.5,),
        seeds=1,
        work=tmp_path,
        jobs=1,
        progress=SilentProgress(),
        trials=30,
    )
    found = targets_summary(rows)
    assert found["searches"] == found["met"] == 1
    assert row["target_ms"] == pytest.approx(0.5 * max(table.latencies_ms), rel=0.1)
    assert row["latency_ms"] == pytest.approx((1 - row["unused_percent"] / 100) * row["target_ms"])
    assert 0 <= row["points_lacking"] <= 0.3
    assert row["best_unused_percent"] >= 0
    assert 30 <= row["judged"] <= 60
    assert row["measured"] >= 4
