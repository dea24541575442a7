from __future__ import annotations

import numpy as np
import pytest

from hwsearch.runtime import denormals
from hwsearch.runtime.denormals import denormals_flushed


def product() -> float:
    """1e-40, a denormal number in float32, unless this thread flushes those."""
    return float((np.full(4, 1e-30, np.float32) * np.float32(1e-10))[0])


@pytest.mark.skipif(denormals._LIBC is None, reason="only x86-64 Linux is known how to flush")
def test_numbers_are_flushed_inside_and_only_there() -> None:
    with denormals_flushed():
        assert product() == 0
        with denormals_flushed():
            assert product() == 0
        assert product() == 0
    assert product() > 0


def test_an_error_inside_restores_the_thread() -> None:
    with pytest.raises(ZeroDivisionError), denormals_flushed():
        raise ZeroDivisionError
    assert product() > 0


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denormals, "_LIBC", None)
    with denormals_flushed():
        assert product() > 0
