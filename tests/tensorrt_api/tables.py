"""What the tables in `tables.json` say of a use of TensorRT's API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = json.loads(Path(__file__).with_name("tables.json").read_text())
VERSIONS: list[str] = _FILE["versions"]
CLASSES: dict[str, dict[str, Any]] = _FILE["classes"]
# pybind11 names a C++ class here that Python has under another name.
_PYTHON_NAMES = {"IParserError": "ParserError"}


@dataclass(frozen=True, order=True)
class Use:
    """A member of a class that the source uses; `member` is empty for the class itself.

    `call` is the number of positional arguments and the names of the others; None if it is not
    called.
    """

    owner: str
    member: str
    call: tuple[int, tuple[str, ...]] | None = None

    def __str__(self) -> str:
        return f"{self.owner}.{self.member}" if self.member else self.owner


def faults(uses: set[Use], guarded: Mapping[str, str]) -> list[str]:
    """A sentence for each use that a version does not offer, unless `guarded` names it."""
    return [fault for use in sorted(uses, key=str) if (fault := _fault(use, guarded))]


def _fault(use: Use, guarded: Mapping[str, str]) -> str | None:
    if str(use) in guarded or use.owner in guarded:
        return None
    lacking = [version for version in VERSIONS if _what(use, version) is None]
    if lacking:
        return f"{use} is not in {', '.join(lacking)}"
    if use.call is not None:
        refusing = [v for v in VERSIONS if not _accepts(_what(use, v) or "", *use.call)]
        if refusing:
            return f"{use} does not take these arguments in {', '.join(refusing)}"
    return None


def _what(use: Use, version: str) -> str | None:
    """What a version's table says of a use; None if it has no such thing."""
    members = CLASSES.get(use.owner, {})
    if use.member:
        return _of(members.get(use.member), version)
    present = any(_of(what, version) is not None for what in members.values())
    return "" if present else None


def _of(what: Any, version: str) -> str | None:
    return what[VERSIONS.index(version)] if isinstance(what, list) else what


def _accepts(signature: str, positional: int, named: tuple[str, ...]) -> bool:
    """Whether an overload takes so many arguments; what has no signature takes anything."""
    return not signature or any(
        _overload_accepts(re.match(r"\((.*)\) -> ", overload), positional, named)
        for overload in signature.split(" | ")
    )


def _overload_accepts(found: re.Match[str] | None, positional: int, named: tuple[str, ...]) -> bool:
    if found is None:
        return True
    parts = re.findall(r"(\w+): [^,\[]*(?:\[.*?\]+)?[^,]*", found[1])
    optional = {part for part in parts if re.search(rf"\b{part}: [^,]*=", found[1])}
    left = parts[positional:]
    return (
        positional <= len(parts) and set(named) <= set(left) and set(left) - optional <= set(named)
    )


def result_class(owner: str, member: str) -> str | None:
    """The class of what a method gives; None if it is no class of TensorRT's."""
    what = CLASSES.get(owner, {}).get(member)
    signature = next((text for text in what if text), "") if isinstance(what, list) else what
    found = re.search(r"-> (\w+)", signature or "")
    name = _PYTHON_NAMES.get(found[1], found[1]) if found else ""
    return name if name in CLASSES else None
