"""Writes `tables.json`: what the bindings of each TensorRT offer, class by class.

    python tests/tensorrt_api/read_tables.py

needs the wheels (`make bindings`), a C compiler and TensorRT-RTX. The file holds
`{"versions": […], "classes": {class: {member: what}}}`. `what` is `""` for an attribute or a value
of an enum, and for a method its signature as pybind11 wrote it, without self and packages:
`(index: int) -> ITensor`; overloads stand one after the other with a bar between. Where versions
differ, `what` is a list with a place for each of them, null where the member is not there.
Functions and constants of the module itself are members of the class `""`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import bindings

TABLES = Path(__file__).with_name("tables.json")
RTX = "tensorrt_rtx_bindings"
Table = dict[str, dict[str, str]]
# Versions of pybind11 spell the same types differently.
_SPELLINGS = {
    "SupportsInt": "int",
    "SupportsFloat": "float",
    "Sequence": "list",
    "List": "list",
    "buffer": "Buffer",
}


def describe(module: ModuleType) -> Table:
    """The table of one imported TensorRT."""
    names = [name for name in dir(module) if not name.startswith("_")]
    classes = {name: getattr(module, name) for name in names}
    classes = {name: found for name, found in classes.items() if isinstance(found, type)}
    table = {"": {name: "" for name in names if name not in classes and _is_own(module, name)}}
    for name, found in sorted(classes.items()):
        table[name] = {
            member: _signature(getattr(found, member, None), member)
            for member in sorted(set(dir(found)) - set(dir(object)) | {"__init__"})
            if member == "__init__" or not member.startswith("_")
        }
    return table


def _is_own(module: ModuleType, name: str) -> bool:
    return not inspect.ismodule(getattr(module, name))


def _signature(member: object, name: str) -> str:
    if not callable(member):
        return ""
    text = inspect.getdoc(member) or ""
    found = re.findall(rf"^(?:\d+\. )?{name}(\(.*\)) -> (.*)$", text, re.MULTILINE)
    return " | ".join(dict.fromkeys(_short(arguments, result) for arguments, result in found))


def _short(arguments: str, result: str) -> str:
    text = re.sub(r"^\(self: [^,)]+(?:, )?", "(", arguments)
    text = re.sub(r"\b(?:\w+(?:\.|::))+(\w+)", r"\1", f"{text} -> {result}")
    for spelled, plain in _SPELLINGS.items():
        text = re.sub(rf"\b{spelled}\b", plain, text)
    # Defaults are written as objects, `<Flag.NAME: 1>`: that there is one is enough.
    return re.sub(r" = (?:<[^>]*>|'[^']*'|\[[^\]]*\]|\([^)]*\)|[^,)]+)", "=", text)


def main() -> None:
    """Read all tables, each in a process of its own: one can't hold two TensorRTs."""
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        for version in bindings.WHEELS:
            reason = bindings.missing(version)
            if reason:
                sys.exit(reason)
            tables[version] = _read(bindings.MODULE, bindings.stand_in(version, Path(folder)))
        tables["rtx"] = _read(RTX, Path(folder))
    classes = {
        name: {
            member: _merged([table.get(name, {}).get(member) for table in tables.values()])
            for member in sorted(set().union(*(table.get(name, {}) for table in tables.values())))
        }
        for name in sorted(set().union(*tables.values()))
    }
    # One line a class keeps the file small and its changes readable.
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(of)}" for name, of in classes.items())
    TABLES.write_text(f'{{"versions": {json.dumps(list(tables))}, "classes": {{\n{lines}\n}}}}\n')


def _merged(whats: list[str | None]) -> str | list[str | None] | None:
    return whats[0] if len(set(whats)) == 1 else whats


def _read(module: str, path: Path) -> Table:
    command = [sys.executable, __file__, module, str(path)]
    table: Table = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return table


if __name__ == "__main__":
    if sys.argv[1:]:
        name, place = sys.argv[1:]
        sys.path.insert(0, place)
        sys.stdout.write(json.dumps(describe(importlib.import_module(name))))
    else:
        main()
