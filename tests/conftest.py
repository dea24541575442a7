"""What all tests share: one thread, seeded examples, and the tiny model of `tiny.py`."""

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from tiny import tiny_space, tiny_supernet

# The tests run in one process per core: threads of their own would only get in the way.
torch.set_num_threads(1)
# Derandomised, so that what passed passes again; without a deadline, since tests time nothing.
settings.register_profile("hwsearch", derandomize=True, deadline=None, database=None)
settings.load_profile("hwsearch")


@pytest.fixture(autouse=True)
def plain_floats() -> None:
    """Undo ONNX Runtime's `set_denormal_as_zero`, which outlives its session in this thread."""
    torch.set_flush_denormal(False)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Make SIGINT interrupt, also in a process that was started in the background, to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def space():
    """The tiny model's search space."""
    return tiny_space()


@pytest.fixture
def supernet():
    """A fresh tiny supernet with random parameters."""
    return tiny_supernet()
