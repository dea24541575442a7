"""A machine whose clock and speed the test sets, and runners that take their time on it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from hwsearch.profiler.session import Subject
from hwsearch.records import LayerConfig, SubnetConfig
from hwsearch.runtime.runner import Array, Seconds, TensorSpec

IMAGE = TensorSpec("image", (None, 3, 8, 8), "float32")
EMBEDDINGS = TensorSpec("image_embeddings", (1, 4, 2, 2), "float32")
COORDS = TensorSpec("point_coords", (None, None, 2), "float32")
LABELS = TensorSpec("point_labels", (None, None), "float32")


@dataclass
class Machine:
    """Time passes only in runs, `slowness(now)` times as fast as the model files say.

    `noise` is the spread of each run's own luck, and the first run after another model's takes
    `cold_s` longer.
    """

    slowness: Callable[[float], float] = lambda now: 1.0
    noise: float = 0.0
    cold_s: float = 0.0
    now: float = 0.0
    turns: list[tuple[str, int]] = field(default_factory=list)
    open_paths: list[Path] = field(default_factory=list)
    most_open: int = 0
    collected: bool = False
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def clock(self) -> float:
        return self.now

    def open(self, path: Path) -> FakeRunner:
        return FakeRunner(self, path)

    def run(self, path: Path, seconds: float) -> float:
        cold = not self.turns or self.turns[-1][0] != path.stem
        luck = 1 + self.noise * abs(self.rng.normal())
        taken = (seconds * luck + self.cold_s * cold) * self.slowness(self.now)
        self.now += taken
        return taken


class FakeRunner:
    """Reads from its file how long a run takes, and what fails when."""

    def __init__(self, machine: Machine, path: Path) -> None:
        self._machine, self._path = machine, path
        self._facts = json.loads(path.read_text())
        self._turns = 0
        self.seen: Mapping[str, Array] = {}
        self._fail_at("open")
        is_encoder = "encoder" in path.stem
        self.inputs = (IMAGE,) if is_encoder else (EMBEDDINGS, COORDS, LABELS)
        self.outputs = (EMBEDDINGS,) if is_encoder else ()
        machine.open_paths.append(path)
        machine.most_open = max(machine.most_open, len(machine.open_paths))

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._fail_at("infer")
        batch = len(next(iter(inputs.values())))
        return {"image_embeddings": np.zeros((batch, 4, 2, 2), "float32")}

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        self._turns += 1
        self._fail_at(f"turn {self._turns}")
        self.seen = inputs
        self._machine.collected |= gc.isenabled() and self._turns > self._facts["warm"]
        seconds = []
        for _ in range(n):
            seconds.append(self._machine.run(self._path, self._facts["seconds"]))
            self._machine.turns.append((self._path.stem, n))
        return np.array(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._machine.open_paths.remove(self._path)

    def _fail_at(self, moment: str) -> None:
        if self._facts["fails"] == moment:
            raise KeyboardInterrupt if self._facts["interrupt"] else RuntimeError("tensor\nburst")


def make_subject(
    folder: Path,
    number: int,
    *,
    encoder_s: float = 0.1,
    decoder_s: float = 0.01,
    resolution: int = 64,
    fails: str = "",
    interrupt: bool = False,
) -> Subject:
    """A subject with fake files; `fails` is `open`, `infer` or `turn K` of the encoder."""
    subnet = SubnetConfig(
        resolution=resolution,
        layers=(LayerConfig(index=0, mlp_width=8 * (number + 1), heads=1),),
    )
    encoder, decoder = folder / f"encoder-{number}.onnx", folder / f"decoder-{number}.onnx"
    facts = {"fails": "", "interrupt": interrupt, "warm": 4}
    encoder.write_text(json.dumps({**facts, "seconds": encoder_s, "fails": fails}))
    decoder.write_text(json.dumps({**facts, "seconds": decoder_s}))
    return Subject(subnet=subnet, encoder=encoder, decoder=decoder)
