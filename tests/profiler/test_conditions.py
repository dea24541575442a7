from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hwsearch.profiler import conditions
from hwsearch.profiler.conditions import capture_conditions
from hwsearch.records import Conditions


def test_they_say_when_where_and_with_what() -> None:
    now = capture_conditions()
    stamp = datetime.fromisoformat(now.timestamp)
    assert stamp.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - stamp) < timedelta(minutes=1)
    assert {"hwsearch", "torch", "onnx", "onnxruntime", "numpy", "python", "platform"} <= set(
        now.versions
    )
    assert now.cpu == "Test CPU"
    assert now.cores >= 1
    assert Conditions.from_json(now.to_json()) == now


def test_what_the_machine_does_not_tell_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conditions, "_GOVERNOR_FILE", tmp_path / "none")
    monkeypatch.setattr(conditions.psutil, "cpu_freq", lambda: None)
    monkeypatch.delattr(conditions.os, "getloadavg", raising=False)
    now = capture_conditions()
    assert (now.governor, now.clock_mhz, now.load_average) == (None, None, None)


def test_the_governor_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "governor").write_text("powersave\n")
    monkeypatch.setattr(conditions, "_GOVERNOR_FILE", tmp_path / "governor")
    assert capture_conditions().governor == "powersave"
