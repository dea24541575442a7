"""Files and folders that are either whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` when the context ends well.

    What was written reaches the disk before the name does, lest a power failure leave it empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give them what any other new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        flush(temporary)
        temporary.replace(path)
        flush_names(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Have what a file holds reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_names(folder: Path) -> None:
    """Have a folder's new names reach the disk, where its file system can be asked to."""
    with suppress(OSError):
        flush(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one rename."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_folder(source: Path, path: Path) -> None:
    """Copy a folder in one rename; where another process was faster, its copy stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as beside:
        copied = Path(shutil.copytree(source, Path(beside) / path.name))
        try:
            copied.rename(path)
        except OSError:
            if not path.is_dir():
                raise
