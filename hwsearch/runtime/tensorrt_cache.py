"""TensorRT's timing cache on disk: what earlier builds measured of kernels, shared by all builds.

With it, one model gives engines of one speed, and builds again in a fraction of the time. Builds
may run at the same time: each takes the cache as it is, and at its end adds what it found to what
others wrote meanwhile, under a file lock. TensorRT-RTX measures nothing when it builds and has no
use for a cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hwsearch.errors import ExportError
from hwsearch.files import replace_file

LOCK_TIMEOUT_S = 60.0  # it is held for as long as a file of a few megabytes takes to read or write


def timing_cache_name(gpu: str, version: str) -> str:
    """A file name of one GPU and one TensorRT alone: each would overwrite the cache of another.

    Args:
        gpu: the GPU's name, such as `NVIDIA L4`.
        version: TensorRT's.
    """
    return f"timing-{re.sub(r'[^A-Za-z0-9.]+', '-', f'{gpu}-{version}')}.cache"


def load_timing_cache(config: Any, path: Path) -> Callable[[], None]:  # noqa: ANN401
    """Give a builder config the cache in a file; an unusable one is as good as none.

    Args:
        config: an IBuilderConfig.
        path: the file; it need not be there.

    Returns:
        To be called after the build: adds what the build measured to the file, and raises
        ExportError where it can't.

    Raises:
        ExportError: the file can't be read or written, or another build does not let go of it.
    """
    cache = config.create_timing_cache(_read(path))  # None: a damaged file
    # False: a cache of another GPU or version is refused, not used by mistake
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, ignore_mismatch=False)

    def save() -> None:
        own = config.get_timing_cache()
        if own is None:
            return
        with _locked(path):
            theirs = config.create_timing_cache(_bytes(path))
            if theirs is not None:
                # False where they don't fit: own ones stay
                own.combine(theirs, ignore_mismatch=False)
            try:
                with replace_file(path) as temporary:
                    temporary.write_bytes(own.serialize())
            except OSError as error:
                raise _refused(path, error) from None

    return save


def _read(path: Path) -> bytes:
    with _locked(path):
        return _bytes(path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise _refused(path, error) from None


def _locked(path: Path) -> Any:  # noqa: ANN401 - a context manager
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=LOCK_TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock.acquire()
    except Timeout:
        raise ExportError(
            f"Another build has held {lock.lock_file} for {LOCK_TIMEOUT_S:.0f} s: wait for it, or "
            "give another --timing-cache."
        ) from None
    except OSError as error:
        raise _refused(path, error) from None


def _refused(path: Path, error: OSError) -> ExportError:
    return ExportError(
        f"The timing cache {path} can't be used ({error.strerror}): give another --timing-cache."
    )
