"""What the user is shown of a supernet's importance."""

import json
import re
from pathlib import Path

import pytest
from tiny import GEOMETRY, tiny_space, tiny_supernet

from hwsearch.cli.main import run
from hwsearch.records import LayerImportance, LayerSpread, ScoreMethod, ScoreSpread
from hwsearch.supernet.store import SupernetManifest, save_supernet
from hwsearch.workflow.inspect import inspect_supernet

FIRST_HALVES: dict[ScoreMethod, float] = {"magnitude": 0.51, "wanda": 0.62, "taylor": 0.93}


def spread(first_half: float) -> ScoreSpread:
    return ScoreSpread(
        heads=(0.4, 0.3, 0.2, 0.1),
        first_neurons=(0.3, first_half, 1.0),
        best_neurons=(0.4, 0.95, 1.0),
    )


def importance(index: int, mlp_drop: float | None) -> LayerImportance:
    return LayerImportance(
        index=index,
        is_global=GEOMETRY.is_global(index),
        miou_drop=index / 50,
        mlp_drop=mlp_drop,
        removal_probability=(0.7, 0.4, 0.1)[index - 1],
    )


MANIFEST = SupernetManifest(
    geometry=GEOMETRY,
    space=tiny_space(),
    importance=tuple(importance(index, -0.00001 * index) for index in (1, 2, 3)),
    scores=tuple(
        LayerSpread(
            index=index,
            mlp_widths=(16, 32, 64),
            methods={method: spread(half) for method, half in FIRST_HALVES.items()},
        )
        for index in range(4)
    ),
    ordering="taylor",
)


@pytest.fixture
def stored(tmp_path: Path):
    """Writes a supernet directory with some fields changed."""

    def write(**changes: object) -> Path:
        directory = tmp_path / "net"
        save_supernet(directory, tiny_supernet(), MANIFEST.model_copy(update=changes))
        return directory

    return write


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_a_line_for_each_layer(stored):
    lines = inspect_supernet(stored()).lines()
    head, *rows = (cells(line) for line in lines[:5])
    halves = ["51 %", "62 %", "93 %"]
    assert head == [
        *("layer", "attention", "no layer", "no MLP", "removed"),
        *("magnitude", "wanda", "taylor"),
    ]
    assert rows == [
        ["0", "windowed", "–", "–", "never", *halves],
        ["1", "global", "2.0", "0.0", "70 %", *halves],
        ["2", "windowed", "4.0", "0.0", "40 %", *halves],
        ["3", "global", "6.0", "0.0", "10 %", *halves],
    ]
    assert len({len(line) for line in lines[:5]}) == 1
    assert "ordered by: taylor" in lines[6]
    assert len(lines) == 7


def test_what_is_not_known_is_said(stored):
    older = tuple(importance(index, None) for index in (1, 2, 3))
    directory = stored(scores=(), importance=older, history=({"steps": 5},))
    lines = inspect_supernet(directory).lines()
    assert cells(lines[2]) == ["1", "global", "2.0", "–", "70 %", "–", "–", "–"]
    assert any("before its training" in line for line in lines)
    assert any("build it again" in line for line in lines)


def test_the_command_prints_the_records(stored, capsys):
    directory = stored()
    assert run(["supernet", "inspect", str(directory), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert tuple(LayerImportance(**row) for row in printed["importance"]) == MANIFEST.importance
    assert tuple(LayerSpread(**row) for row in printed["scores"]) == MANIFEST.scores
    assert (printed["ordering"], printed["trainings"], printed["page"]) == ("taylor", 0, None)


def test_the_command_writes_one_page_that_needs_nothing_else(stored, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    assert run(["supernet", "inspect", str(stored()), "--out", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert text.count("<figure") == 1
    assert not re.search(r'(?:src|href)="|url\(|@import|<script', text)
    for note in ("3 g, the layer: 6", "2, removed: 40", "0, taylor: 93", "1 g, taylor: 40"):
        assert f"<title>{note}</title>" in text
    assert "ordered by: taylor" in text


def test_a_supernet_without_importance_is_one_sentence(stored, capsys):
    directory = stored(importance=(), scores=())
    assert run(["supernet", "inspect", str(directory)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "holds no importance" in printed.err
    assert "hwsearch supernet build" in printed.err


def test_the_shipped_supernet_can_be_inspected(capsys):
    assert run(["supernet", "inspect", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cells(line)[0] for line in lines[1:13]] == [str(index) for index in range(12)]


def test_an_ordering_that_there_is_not(tmp_path, capsys):
    arguments = ("--checkpoint", "x.pth", "--data", "scenes", "--out", str(tmp_path / "out"))
    assert run(["supernet", "build", *arguments, "--ordering", "best"]) == 2
    error = capsys.readouterr().err
    assert "no ordering 'best': take one of none, magnitude, wanda, taylor" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
