"""Measured latencies beside the claims."""

from __future__ import annotations

import math

from hwsearch.errors import ProfileError
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.records import SubnetConfig, short_digest
from hwsearch.runtime.devices import resolve_target
from hwsearch.workflow.timing import Stopwatch
from supernet_study.runs import trained_supernet
from supernet_study.study import Row, Study


def with_latencies(study: Study, rows: list[Row], *, threads: int) -> list[Row]:
    """The rows with `latency_ms` on the CPU in ONNX Runtime, image encoder and one decoding.

    All subnets are timed in interleaved rounds of one session; weights don't matter to it.
    """
    configs = {
        row["model"]: SubnetConfig.model_validate(row["subnet"]) for row in rows if "subnet" in row
    }

    target = resolve_target(device="cpu", threads=threads)

    def measure() -> dict[str, float]:
        store = ProfileStore(study.work / "profiles", target)
        stopwatch = Stopwatch(trained_supernet(study), store, SessionSettings(), study.progress)
        distinct = list(dict.fromkeys(configs.values()))
        measured = stopwatch.latencies_ms(distinct)
        if not all(map(math.isfinite, measured)):
            raise ProfileError("Not all subnets of the table could be timed: see the warnings.")
        return {config.id: ms for config, ms in zip(distinct, measured, strict=True)}

    ids = short_digest(" ".join(sorted({config.id for config in configs.values()})))
    found = study.kept(f"latencies-{target.fingerprint}-{ids}", measure)
    return [
        row | ({"latency_ms": found[configs[row["model"]].id]} if row["model"] in configs else {})
        for row in rows
    ]
