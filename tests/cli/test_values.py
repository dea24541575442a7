"""How the command line reads values."""

import pytest

from hwsearch.cli.options import parse_latency


@pytest.mark.parametrize(
    ("text", "latency_ms"),
    [("40ms", 40.0), ("1.5s", 1500.0), ("33", 33.0), (" 2.5 ms ", 2.5), ("1e2ms", 100.0)],
)
def test_latencies(text, latency_ms):
    assert parse_latency(text) == latency_ms
