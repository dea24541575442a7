"""The demo's target stays what it was when the demo goes on."""

import pytest
from tiny import tiny_supernet

from hwsearch.errors import ProfileError
from hwsearch.profiles import Profile
from hwsearch.records import Measurement, SubnetConfig, Target
from hwsearch.workflow.demo import _first_latency_ms

SUPERNET = tiny_supernet()
TARGET = Target(device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1")


def row(config: SubnetConfig, ms: float | None, *, drifted: bool = False) -> Measurement:
    return Measurement(
        supernet_id=SUPERNET.id,
        subnet_id=config.id,
        subnet=config,
        target=TARGET,
        session_id="s",
        encoder_ms=ms,
        decoder_ms=None if ms is None else 0.0,
        error="memory ran out" if ms is None else None,
        drifted=drifted,
    )


def test_the_target_hangs_on_the_first_latency_of_the_largest():
    """A restless machine times it again: its target, and with it the study, stays the same."""
    largest, smallest = SUPERNET.space.largest, SUPERNET.space.smallest
    begun = [row(largest, None), row(smallest, 1.0), row(largest, 10.0, drifted=True)]
    profile = Profile((*begun, row(largest, 12.0), row(largest, 11.0)))
    assert _first_latency_ms(Profile(tuple(begun)), SUPERNET) == 10.0
    assert _first_latency_ms(profile, SUPERNET) == 10.0


def test_a_largest_that_can_not_be_timed_is_a_sentence():
    failed = Profile((row(SUPERNET.space.largest, None),))
    with pytest.raises(ProfileError, match="could not be timed: memory ran out"):
        _first_latency_ms(failed, SUPERNET)
