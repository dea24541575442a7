"""The lines of a profile's file: JSON, one a measurement, only ever appended."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hwsearch.errors import ProfileError, UsageError
from hwsearch.files import flush_names
from hwsearch.records import Measurement

Line = dict[str, Any]
Migration = Callable[[Line], Line]

# One function for each schema version that came after the first: number k turns a line of version
# k + 1 into one of version k + 2. Append to it; never change or remove what others' files need.
MIGRATIONS: tuple[Migration, ...] = ()


def migrate(line: Line, migrations: Sequence[Migration] = MIGRATIONS) -> Line:
    """Bring a measurement's line to the present schema version.

    Raises:
        UsageError: the line has no version, or one that this hwsearch does not know yet.
    """
    version = line.get("schema_version")
    newest = len(migrations) + 1
    if not isinstance(version, int) or not 1 <= version <= newest:
        raise UsageError(
            f"The schema version is {version!r}, and this hwsearch reads 1 to {newest}: install a "
            "newer one."
        )
    for migration in migrations[version - 1 :]:
        line = migration(line)
    return line


def parse_lines(content: bytes, path: Path) -> list[Measurement]:
    """All measurements of a file; a last line that was cut short is dropped with a warning.

    Raises:
        ProfileError: a line is damaged otherwise; the message has its number.
    """
    *lines, tail = content.split(b"\n")
    if not tail.strip() or not _is_cut_short(tail):
        lines.append(tail)
    else:
        warnings.warn(f"The last line of {path} was cut short and is dropped.", stacklevel=3)
    measurements = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            measurements.append(_measurement(line))
        except UsageError as error:
            raise ProfileError(
                f"Line {number} of {path} is damaged: {error} Take that line out; "
                "'hwsearch profile' measures its subnet again if it is in the sample."
            ) from None
    return measurements


def _measurement(text: bytes) -> Measurement:
    try:
        line = json.loads(text)
    except ValueError:
        raise UsageError("It is not JSON.") from None
    if not isinstance(line, dict):
        raise UsageError("It is not a JSON object.")
    return Measurement.from_json(json.dumps(migrate(line)))


def append_line(path: Path, line: bytes) -> None:
    """Add a line, in one write that reaches the disk before this returns.

    Raises:
        OSError: it could not be written, or not whole.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        flush_names(path.parent)


def mend_tail(path: Path) -> None:
    """Cut off an unfinished last line; give the line break that a finished one lacks."""
    if not path.exists() or _ends_with_break(path):
        return
    content = path.read_bytes()
    tail = content[content.rfind(b"\n") + 1 :]
    if _is_cut_short(tail):
        os.truncate(path, len(content) - len(tail))
    else:
        append_line(path, b"\n")


def _is_cut_short(line: bytes) -> bool:
    """Whether a line ends before its object does; one that is whole may be wrong otherwise."""
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _ends_with_break(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
