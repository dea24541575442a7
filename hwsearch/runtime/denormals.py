"""Denormal numbers flushed to zero while a model runs, and only then.

Arithmetic on denormal numbers is up to a hundred times slower than on others. Both runtimes have an
option for that, and both change the caller's thread for good, whatever the program computes there
later. ONNX Runtime's falls short as well: on the caller's thread, which does a share of the work,
it is heeded in a process's first session alone.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_IS_KNOWN = sys.platform == "linux" and platform.machine() == "x86_64"
_LIBC = ctypes.CDLL(None) if _IS_KNOWN else None
# Bits of the SSE control register (Intel's manual, volume 1, 10.2.3): flush results to zero, and
# take denormal operands as zero.
_FLUSH_BITS = 0x8000 | 0x0040


class _FloatEnvironment(ctypes.Structure):
    """C's `fenv_t` on x86-64 Linux: the state of the x87 unit, then the SSE control register."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush on this thread and on those it starts; afterwards this thread is as it was.

    On other systems than x86-64 Linux nothing is done.
    """
    if _LIBC is None:
        yield
        return
    before, flushing = _FloatEnvironment(), _FloatEnvironment()
    _LIBC.fegetenv(ctypes.byref(before))
    _LIBC.fegetenv(ctypes.byref(flushing))
    flushing.mxcsr |= _FLUSH_BITS
    _LIBC.fesetenv(ctypes.byref(flushing))
    try:
        yield
    finally:
        _LIBC.fesetenv(ctypes.byref(before))
