"""A process that has most of Python loaded and forks a worker whenever the session asks for one.

Run as `python -m hwsearch.profiler.nursery FD`, with the number of an inherited socket. It does
nothing but wait. Once the session is gone, killed or not, it ends all workers, hung or not.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from hwsearch.profiler.worker import serve
from hwsearch.runtime.runner import Runner

FORK, END = "fork", "end"


def main(descriptor: int) -> None:
    """Wait for requests on a socket until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session, which ends us
    control = Connection(descriptor)
    runtime, open_runner = control.recv()
    gc.collect()
    gc.freeze()  # else a worker's first collection would copy every page it shares with us
    control.send(os.getpid())
    workers: set[int] = set()
    try:
        while True:
            request, worker = control.recv()
            if request == FORK:
                pipe = receive_descriptor(control)
                try:
                    worker = os.fork()
                except OSError as refusal:  # there are as many processes as there may be
                    worker = -(refusal.errno or errno.EAGAIN)
                if worker == 0:
                    control.close()
                    _work(Connection(pipe), runtime, open_runner)
                os.close(pipe)  # the worker alone holds its end, so that its death is seen
                if worker > 0:
                    workers.add(worker)
                control.send(worker)
            elif request == END:
                workers.discard(worker)
                control.send(_end(worker))
    except (EOFError, OSError):
        pass
    finally:
        for worker in workers:
            _end(worker)


def send_descriptor(connection: Connection, descriptor: int) -> None:
    """Give a file descriptor to the process at the other end."""
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        socket.send_fds(channel, [b"."], [descriptor])


def receive_descriptor(connection: Connection) -> int:
    """Take what `send_descriptor` gave."""
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise EOFError
    return descriptors[0]


def _work(
    pipe: Connection, runtime: Sequence[str], open_runner: Callable[[Path], Runner]
) -> NoReturn:
    """Be a worker; never return into the nursery's own loop.

    The runtime is loaded only here: it starts threads, and who has threads must not fork.
    """
    code = 1
    try:
        for module in runtime:
            importlib.import_module(module)
        serve(pipe, open_runner)
        code = 0
    except BaseException:  # noqa: BLE001 - the session sees that we ended, and the reason
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end(worker: int) -> int:
    """Kill a worker, or find it dead; its exit code, or minus the signal that ended it."""
    os.kill(worker, signal.SIGKILL)  # no effect on one that is dead already but not waited for
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


if __name__ == "__main__":
    main(int(sys.argv[1]))
