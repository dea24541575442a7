"""Where a bundle is written: a folder beside its place, which is renamed at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hwsearch.errors import ExportError, HwsearchError, UsageError
from hwsearch.export.manifest import read_manifest


def check_place(out: Path) -> None:
    """Do nothing if `out` is free, an empty directory, or a bundle.

    Raises:
        UsageError: something else is there, or it is where the command runs.
    """
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):  # it could not be renamed into place
        raise UsageError(f"{out} holds the folder that this runs in: name another place.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        read_manifest(out)
    except HwsearchError:
        raise UsageError(
            f"{out} is there already and is no bundle: name another place, or delete it yourself."
        ) from None


def staging_folder(out: Path) -> Path:
    """A new folder beside `out`.

    Raises:
        ExportError: there can't be one.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise ExportError(
            f"Nothing can be written to {out.parent} ({error.strerror}): name another place."
        ) from None
    folder.chmod(0o755)  # mkdtemp makes directories private
    return folder


def put_in_place(folder: Path, out: Path) -> None:
    """Rename `folder` to `out`; what was there goes only once the new one stands."""
    if not out.exists():
        folder.replace(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old.")) / out.name
    out.replace(old)
    try:
        folder.replace(out)
    except OSError:
        old.replace(out)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)
