"""A GPU with a stream and a clock that only work moves, and torch.cuda's classes on top of it.

Its objects are made with `create_autospec` from torch's own classes, so that a method that torch
does not have, or other arguments than it takes, fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch

# Before `install` puts something else in their places.
_EVENT, _STREAM, _GRAPH = torch.cuda.Event, torch.cuda.Stream, torch.cuda.CUDAGraph


@dataclass
class Machine:
    """Times in seconds. A run begins when the stream is free and the host has enqueued it.

    `host` and `busy_until` are what the host's clock says, and when the stream will be free.
    `flying` counts what is enqueued and was not waited for, `most_flying` the most of it.
    """

    run_s: float = 2e-3
    enqueue_s: float = 5e-4
    replay_s: float = 1e-5
    free_bytes: int = 1 << 30
    can_capture: bool = True
    host: float = 0.0
    busy_until: float = 0.0
    flying: int = 0
    most_flying: int = 0
    captures: int = 0
    replays: int = 0
    capturing: list[Callable[[], None]] | None = None
    streams: list[int] = field(default_factory=list)
    current_stream: object = None
    broken: str = ""  # what CUDA answers from now on
    breaks_in_capture: str = ""  # what it answers after a capture that failed

    def clock(self) -> float:
        return self.host

    def launch(self, work: Callable[[], None], *, enqueue_s: float | None = None) -> None:
        """Put work on the stream, or into the graph that is being captured."""
        if self.capturing is not None:
            if not self.can_capture:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.capturing.append(work)
            return
        self.host += self.enqueue_s if enqueue_s is None else enqueue_s
        self.busy_until = max(self.busy_until, self.host) + self.run_s
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        work()

    def wait(self, until: float) -> None:
        self.host = max(self.host, until)
        self.flying = 0 if until >= self.busy_until else min(self.flying, 1)

    def event(self, *, enable_timing: bool) -> object:
        assert enable_timing, "an event without timing can't tell it"
        event = create_autospec(_EVENT, instance=True)

        def record(stream: object = None) -> None:
            event.at = max(self.busy_until, self.host)

        event.record.side_effect = record
        event.synchronize.side_effect = lambda: self.wait(event.at)
        event.elapsed_time.side_effect = lambda end: (end.at - event.at) * 1e3
        return event

    def stream(self, device: torch.device) -> object:
        stream = create_autospec(_STREAM, instance=True)
        stream.cuda_stream = 1000 + len(self.streams)
        self.streams.append(stream.cuda_stream)
        stream.synchronize.side_effect = self.synchronize
        return stream

    def synchronize(self, device: torch.device | None = None) -> None:
        if self.broken:
            raise RuntimeError(self.broken)
        self.wait(self.busy_until)

    def graph(self) -> object:
        graph = create_autospec(_GRAPH, instance=True)
        graph.work = []

        def replay() -> None:
            self.replays += 1
            for work in graph.work:
                self.launch(work, enqueue_s=self.replay_s)

        graph.replay.side_effect = replay
        return graph

    @contextmanager
    def capture(
        self, cuda_graph: object, *, stream: object, capture_error_mode: str
    ) -> Iterator[None]:
        """As torch does it: where a capture fails, its end raises and its stream stays current."""
        assert capture_error_mode == "thread_local", "else other threads' calls end the capture"
        self.captures += 1
        self.capturing = []
        before, self.current_stream = self.current_stream, stream
        try:
            yield
        except BaseException as error:
            self.broken = self.breaks_in_capture
            raise RuntimeError("operation failed due to a previous error during capture") from error
        finally:
            work, self.capturing = self.capturing, None
        cuda_graph.work = work
        self.current_stream = before

    @contextmanager
    def current(self, stream: object) -> Iterator[None]:
        before, self.current_stream = self.current_stream, stream
        try:
            yield
        finally:
            self.current_stream = before

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put this machine in the place of torch's GPUs."""
        replaced = {
            "Event": self.event,
            "Stream": self.stream,
            "CUDAGraph": self.graph,
            "graph": self.capture,
            "stream": self.current,
            "set_device": create_autospec(torch.cuda.set_device),
            "synchronize": create_autospec(torch.cuda.synchronize, side_effect=self.synchronize),
            "mem_get_info": create_autospec(
                torch.cuda.mem_get_info, side_effect=lambda device=None: (self.free_bytes, 1 << 40)
            ),
        }
        for name, fake in replaced.items():
            monkeypatch.setattr(torch.cuda, name, fake)


def times(machine: Machine) -> SimpleNamespace:
    """What `cuda_timing` needs of a machine: something to enqueue, events and a clock."""
    return SimpleNamespace(
        enqueue=lambda: machine.launch(lambda: None),
        new_event=lambda: machine.event(enable_timing=True),
        clock=machine.clock,
    )
