"""NVIDIA's timing program, played by a script."""

import sys
from pathlib import Path

import pytest

from hwsearch.errors import DeviceError
from hwsearch.runtime import trtexec
from hwsearch.runtime.trtexec import TrtexecResult, find_trtexec, run_trtexec

ANSWER = """&&&& RUNNING TensorRT.trtexec [TensorRT v101303] # trtexec
[I] Latency: min = 9 ms, max = 9 ms, mean = 9 ms, median = 9 ms, percentile(99%) = 9 ms
[I] GPU Compute Time: min = 1.1 ms, max = 1.4 ms, mean = 1.2 ms, median = 1.25 ms
"""
HELP = "--loadEngine --shapes --warmUp --iterations --duration --noDataTransfers --useCudaGraph"
ENGINE = Path("a.engine")
SHAPES = {"image": (1, 3, 64, 64), "points": (1, 2)}


def program(folder: Path, *, answer: str = ANSWER, options: str = HELP) -> str:
    path = folder / "trtexec"
    path.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"print({options!r} if '--help' in sys.argv else {answer!r})\n"
    )
    path.chmod(0o755)
    return str(path)


def test_the_median_of_gpu_time_is_taken(tmp_path: Path):
    found = run_trtexec(program(tmp_path), ENGINE, shapes=SHAPES, graph=True)
    assert (found.version, found.median_ms) == ("101303", 1.25)
    assert found.command[1:] == (
        "--loadEngine=a.engine",
        "--shapes=image:1x3x64x64,points:1x2",
        "--warmUp=200",
        "--iterations=10",
        "--duration=3",
        "--noDataTransfers",
        "--useCudaGraph",
    )


def test_only_options_that_a_version_knows_are_given(tmp_path: Path):
    short = program(tmp_path, options=HELP.replace("--noDataTransfers", ""))
    found = run_trtexec(short, ENGINE, shapes={}, graph=False)
    assert found.command[1:] == (
        "--loadEngine=a.engine",
        "--warmUp=200",
        "--iterations=10",
        "--duration=3",
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("[I] start\n[E] Error[6]:   no\tengine.\n[I] end", r"\[E\] Error\[6\]: no engine\."),
        ("killed", "killed"),
    ],
)
def test_a_failure_is_a_sentence(tmp_path: Path, answer: str, reason: str):
    with pytest.raises(DeviceError, match=rf"can't time a\.engine: {reason}"):
        run_trtexec(program(tmp_path, answer=answer), ENGINE, shapes={}, graph=True)


def test_a_program_that_can_not_be_run(tmp_path: Path):
    with pytest.raises(DeviceError, match="can't be run"):
        run_trtexec(str(tmp_path / "none"), ENGINE, shapes={}, graph=True)


def test_it_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(trtexec._PROGRAMS, "tensorrt", ("trtexec",))
    assert find_trtexec("tensorrt") is None
    path = program(tmp_path)
    assert find_trtexec("tensorrt") == path
    assert find_trtexec("tensorrt-rtx") is None


@pytest.mark.parametrize(
    ("told", "version", "same"),
    [
        ("110400", "11.4.0.106", True),
        ("101303", "10.13.3.9", True),
        ("101303", "11.4.0.106", False),
        ("1.7.1", "1.7.1", True),
        ("10701", "1.7.1.40", True),
        (None, "11.4.0.106", False),
    ],
)
def test_the_programs_version_is_held_against_tensorrts(
    told: str | None, version: str, same: bool
) -> None:
    assert TrtexecResult(told, 1.0, ()).is_of(version) is same
