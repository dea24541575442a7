"""Lines of a profile whose law is known."""

import numpy as np

from hwsearch.records import Drift, LayerConfig, Measurement, SubnetConfig, Target

TARGET = Target(device="cpu", device_name="Fake", runtime="onnxruntime", runtime_version="1.30.0")
ANCHOR_MS = 10.0


def profile_row(number, factor, *, around=1.0, group=1.0, resolution=64, session="s", **more):
    """A subnet that takes `number` + 1 ms, measured as `factor` times that.

    `around` and `group` tell how slow the reference was, as shares of the anchor.
    """
    subnet = SubnetConfig(
        resolution=resolution, layers=(LayerConfig(index=0, mlp_width=number + 1, heads=1),)
    )
    ms = float((number + 1) * factor)
    return Measurement(
        supernet_id="fake",
        subnet_id=subnet.id,
        subnet=subnet,
        target=TARGET,
        session_id=session,
        encoder_ms=0.8 * ms,
        decoder_ms=0.2 * ms,
        low_ms=0.99 * ms,
        high_ms=1.01 * ms,
        drift=Drift(around_ms=ANCHOR_MS * around, anchor_ms=ANCHOR_MS, group_ms=ANCHOR_MS * group),
        **more,
    )


def random_profile(seed, *, common, scatter, sessions=12, sizes=(8,)):
    """Sessions of subnets that chance put together, and the error that is common to each."""
    rng = np.random.default_rng(seed)
    errors = common * rng.standard_normal(sessions)
    rows, number = [], 0
    for session, error in enumerate(errors):
        for _ in range(sizes[session % len(sizes)]):
            own = error + scatter * rng.standard_normal()
            rows.append(profile_row(number, np.exp(own), session=str(session)))
            number += 1
    return rows, errors


def expected_ms(rows):
    """What subnets really take, by their ids."""
    return {row.subnet_id: float(row.subnet.layers[0].mlp_width) for row in rows}
