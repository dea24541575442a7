from __future__ import annotations

import pytest

from hwsearch.profiler import conditions


@pytest.fixture(autouse=True)
def _quick_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the CPU for its name takes a second."""
    monkeypatch.setattr(conditions, "cpu_name", lambda: "Test CPU")
