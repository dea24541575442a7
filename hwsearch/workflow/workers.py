"""Several processes of one machine that work on one study.

Each loads the supernet, the data and the latency predictor itself; all they share is the study's
storage and the accuracy cache. A worker that is killed leaves a trial that the others do again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import HwsearchError
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Deployment
from hwsearch.search.interrupts import Interrupts
from hwsearch.search.study import SubnetStudy
from hwsearch.workflow.prepare import SearchRequest, prepare_search
from hwsearch.workflow.workspace import Workspace

LOOK_S = 0.5
ENDED = 128 + signal.SIGTERM  # exit code of a worker that was asked to end
PATIENCE_S = 20.0  # for workers to end by themselves
WORTH_IT = 4  # trials a worker; where fewer are left, starting workers takes longer than it saves
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Corrections = list[tuple[list[Deployment], NDArray[np.float64]]]


@dataclass
class Crew:
    """Runs the trials of a search in several processes.

    Attributes:
        request: the search; `workers` of it are started.
        workspace: where its results lie.
        corrections: measurements that the latency predictor was corrected by, in their order:
            each worker corrects its own by the same.
    """

    request: SearchRequest
    workspace: Workspace
    corrections: Corrections = field(default_factory=list)

    def run_trials(self, study: SubnetStudy, total: int, *, progress: Progress) -> None:
        """Bring the study to `total` judged deployments, or until nothing new is found.

        Raises:
            HwsearchError: what a worker raised, or that all of them were killed.
        """
        left = total - len(study.judged)
        if left < WORTH_IT * self.request.workers:
            study.run_until(total, progress=progress)
            return
        with self._working(total) as (processes, pipes):
            self._watch(study, total, processes, pipes, progress)

    @contextmanager
    def _working(self, total: int) -> Iterator[tuple[list[BaseProcess], list[Connection]]]:
        """Workers that are started, and ended whatever happens."""
        count = self.request.workers
        threads = max(1, _own_threads() // count)
        context = multiprocessing.get_context("spawn")
        processes: list[BaseProcess] = []
        pipes: list[Connection] = []
        try:
            with _inherited(threads):
                for number in range(count):
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(
                        target=work,
                        args=(self.request, self.workspace, self.corrections, total),
                        kwargs={"threads": threads, "report": theirs},
                        name=f"hwsearch worker {number + 1}",
                    )
                    process.start()
                    theirs.close()
                    processes.append(process)
                    pipes.append(ours)
            yield processes, pipes
        finally:
            _end(processes)
            for pipe in pipes:
                pipe.close()

    def _watch(
        self,
        study: SubnetStudy,
        total: int,
        processes: Sequence[BaseProcess],
        pipes: Sequence[Connection],
        progress: Progress,
    ) -> None:
        done, dead = 0, set[str]()
        with progress.task("searching", total) as advance, Interrupts() as interrupts:
            while any(process.is_alive() for process in processes):
                alive = [process.sentinel for process in processes if process.is_alive()]
                with interrupts.opened():  # not within the storage, where one may get lost
                    wait(alive, LOOK_S)
                before, done = done, len(study.judged)
                if done > before:
                    advance(done - before, study.best_note())
                _raise_reported(pipes)
                for process in processes:
                    if process.exitcode and process.name not in dead:
                        dead.add(process.name)
                        progress.log(f"{process.name} ended with {_ending(process.exitcode)}.")
            _raise_reported(pipes)
        if len(study.judged) >= total:
            return
        if len(dead) == len(processes):
            raise HwsearchError(
                f"All {len(processes)} workers were ended before the search was done: the same "
                "command goes on with what is left; take fewer --workers if memory ran out."
            )
        progress.log(f"Nothing new that fits was found: stopped at {len(study.judged)} trials.")


def work(
    request: SearchRequest,
    workspace: Workspace,
    corrections: Corrections,
    total: int,
    *,
    threads: int,
    report: Connection,
) -> None:
    """Be a worker: run trials of a study until `total` are judged; errors go to `report`."""
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torch

        from hwsearch.supernet.store import load_supernet

        torch.set_num_threads(threads)
        supernet = load_supernet(request.supernet_name)
        prepared = prepare_search(supernet, request, workspace=workspace, progress=SilentProgress())
        for deployments, latencies_ms in corrections:
            prepared.objectives.refit(deployments, latencies_ms)
        study = prepared.plan.open(prepared.objectives)
        study.run_until(total, progress=SilentProgress())
    except KeyboardInterrupt:
        sys.exit(ENDED)
    except HwsearchError as error:
        report.send(error)
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        report.send(HwsearchError(f"A worker failed: {type(error).__name__}: {words}"))
        raise


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """A worker whose search was killed would go on alone, seen by nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _own_threads() -> int:
    import torch

    return torch.get_num_threads()


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """What workers take over as they start: the number of threads, and deafness to Ctrl-C.

    Ctrl-C reaches all processes of a terminal. It is for the search, which ends its workers.
    """
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    is_main = threading.current_thread() is threading.main_thread()
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, heard)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _raise_reported(pipes: Sequence[Connection]) -> None:
    for pipe in pipes:
        try:
            if pipe.poll():
                raise pipe.recv()
        except (EOFError, OSError):
            continue


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _ending(code: int) -> str:
    number = code - 128 if code == ENDED else -code
    return signal.Signals(number).name if number > 0 else f"exit code {code}"
