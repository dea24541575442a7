"""A subnet's two models, open side by side, and one turn of timing them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from hwsearch.profiler.inputs import decoder_inputs, encoder_inputs
from hwsearch.profiler.settings import SessionSettings
from hwsearch.profiler.timer import Floats
from hwsearch.records import SubnetConfig
from hwsearch.runtime.runner import Array, Runner

Clock = Callable[[], float]
OpenRunner = Callable[[Path], Runner]


@dataclass(frozen=True)
class Subject:
    """A subnet to time, as the ONNX files of its encoder and its decoder."""

    subnet: SubnetConfig
    encoder: Path
    decoder: Path


@dataclass(frozen=True)
class Part:
    """One open model with its inputs, and the calls it gets in each turn.

    The first `untimed` of them bring back the caches and are not kept.
    """

    runner: Runner
    inputs: dict[str, Array]
    untimed: int
    timed: int


@dataclass(frozen=True)
class Pair:
    """An open encoder and decoder, warm."""

    encoder: Part
    decoder: Part


@dataclass(frozen=True)
class Slice:
    """What one turn measured: latencies in seconds, and the middle of the turn on the clock."""

    encoder: Floats
    decoder: Floats
    at: float

    @property
    def encoder_ms(self) -> float:
        """Median of the turn."""
        return float(np.median(self.encoder)) * 1e3

    @property
    def decoder_ms(self) -> float:
        """Median of the turn."""
        return float(np.median(self.decoder)) * 1e3

    @property
    def full_ms(self) -> float:
        """Encoder plus decoder."""
        return self.encoder_ms + self.decoder_ms


class Host(Protocol):
    """Where the models of one subject live; leaving its context closes them."""

    def open(self, path: Path) -> Runner:
        """Open a model file."""
        ...

    def memory_bytes(self) -> int | None:
        """Peak resident memory that the models took so far; None where that can't be told."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class LocalHost:
    """This very process, which a crash of a model ends."""

    def __init__(self, open_runner: OpenRunner) -> None:
        self._open_runner = open_runner
        self._stack = ExitStack()

    def open(self, path: Path) -> Runner:
        """Open a model file."""
        return self._stack.enter_context(self._open_runner(path))

    def memory_bytes(self) -> None:
        """Not known: the allocator keeps what it once had, for whichever model."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def open_pair(
    subject: Subject,
    host: Host,
    *,
    batch: int,
    settings: SessionSettings,
    rng: np.random.Generator,
    clock: Clock,
) -> Pair:
    """Open both models of a subject, make their inputs, and run them until they are warm."""
    encoder = host.open(subject.encoder)
    decoder = host.open(subject.decoder)
    image = encoder_inputs(encoder.inputs, batch=batch, rng=rng)
    prompt = decoder_inputs(
        decoder.inputs, encoder.infer(image), resolution=subject.subnet.resolution, rng=rng
    )
    encoder_s: list[float] = []
    decoder_s: list[float] = []
    start = clock()
    while len(encoder_s) < 2 or clock() - start < settings.warmup_s:
        encoder_s.append(encoder.time(image, 1)[0])
        decoder_s.append(decoder.time(prompt, 1)[0])
    return Pair(
        encoder=_part(encoder, image, min(encoder_s), settings),
        decoder=_part(decoder, prompt, min(decoder_s), settings),
    )


def time_pair(pair: Pair, clock: Clock) -> Slice:
    """Give a pair its turn: the encoder's calls, then the decoder's."""
    start = clock()
    encoder = _time_part(pair.encoder)
    decoder = _time_part(pair.decoder)
    return Slice(encoder=encoder, decoder=decoder, at=(start + clock()) / 2)


def _part(
    runner: Runner, inputs: dict[str, Array], seconds: float, settings: SessionSettings
) -> Part:
    fitting = int(settings.slice_s / max(seconds, 1e-9))
    return Part(
        runner=runner,
        inputs=inputs,
        untimed=settings.settle_calls if seconds < settings.settle_s else 0,
        timed=max(1, min(fitting, settings.max_calls)),
    )


def _time_part(part: Part) -> Floats:
    return part.runner.time(part.inputs, part.untimed + part.timed)[part.untimed :]
