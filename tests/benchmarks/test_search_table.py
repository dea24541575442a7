"""A table is made of a tiny supernet: judged, timed, stopped on the way, and whole in the end."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import GEOMETRY, randomised_sam, tiny_space

from hwsearch.data.scenes.write import write_scenes
from hwsearch.errors import DataError
from hwsearch.profiler.session import SessionSettings
from hwsearch.progress import SilentProgress
from hwsearch.records import SubnetConfig
from hwsearch.runtime.devices import resolve_target
from hwsearch.supernet.store import SupernetManifest, load_supernet, save_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import inherited_accuracy, search_data
from search_study import making
from search_study.making import Making, assemble, judge_members, time_members
from search_study.restricted import restricted_space

QUICK = SessionSettings(
    warmup_s=0.0,
    min_rounds=2,
    max_rounds=2,
    slice_s=0.0,
    budget_s=0.1,
    max_drift=1e9,
    max_half_width=1e9,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Making:
    folder = tmp_path_factory.mktemp("table")
    write_scenes(folder / "data", counts={"val": 2, "test": 1}, seed=1, size=(96, 128))
    net = Supernet(randomised_sam(0), GEOMETRY, tiny_space())
    manifest = SupernetManifest(geometry=GEOMETRY, space=tiny_space())
    save_supernet(folder / "net", net, manifest)
    restricted = restricted_space(tiny_space(), groups=2)
    return Making(
        supernet=str(folder / "net"),
        data=str(folder / "data"),
        views=2,
        restricted=restricted,
        members=tuple(restricted.members()),
        target=resolve_target(device="cpu", threads=1),
        work=folder / "work",
        progress=SilentProgress(),
    )


def test_judging_goes_on_after_a_stop(
    tiny: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    making_here = replace(tiny, work=tmp_path)
    judged: list[SubnetConfig] = []
    judge = making._mious

    def stopping(supernet: str, data: str, views: int, lot: Sequence[SubnetConfig]) -> list[float]:
        if len(judged) == 8:
            raise KeyboardInterrupt
        judged.extend(lot)
        return judge(supernet, data, views, lot)

    monkeypatch.setattr(making, "_mious", stopping)
    with pytest.raises(KeyboardInterrupt):
        judge_members(making_here, jobs=1)
    with pytest.raises(DataError, match="have no latency"):
        assemble(making_here)
    judged.append(judged[0])  # from here on it does not stop
    mious = judge_members(making_here, jobs=1)
    assert sorted(c.id for c in judged[9:]) == sorted(c.id for c in tiny.subnets[8:])
    data = search_data(tiny.data, framing="image", max_views=2)
    accuracy = inherited_accuracy(load_supernet(tiny.supernet), data.search)
    assert mious[0] == pytest.approx(accuracy(tiny.subnets[0]))
    assert mious[-1] == pytest.approx(accuracy(tiny.subnets[-1]))


def test_a_table_holds_what_was_judged_and_timed(tiny: Making):
    mious = judge_members(tiny, jobs=1)
    time_members(tiny, QUICK)
    table = assemble(tiny)
    assert table.mious == pytest.approx(mious, abs=1e-6)
    assert table.subnets == tuple(tiny.subnets)
    assert min(table.latencies_ms) > 0
    assert table.latency.noise_floor_percent is not None
    assert table.accuracy.views == 2
    largest, smallest = (
        table.latencies_ms[table.rows[member]]
        for member in (table.restricted.space.largest, table.restricted.space.smallest)
    )
    assert largest > smallest
