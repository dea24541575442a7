"""Imports go downwards only, and heavy libraries stay in their rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hwsearch"

# A module may import what stands in a line above its own, never its own line or one below.
LEVELS = (
    {"errors"},
    {"records", "progress", "files"},
    {"sam", "results", "drift_share"},
    {"session_errors", "profile_lines"},
    {"space", "costs", "compute", "data", "runtime", "profiles", "report"},
    {"checkpoint", "evaluation", "profiler", "predictor", "search", "export"},
    {"supernet"},
    {"workflow"},
    {"cli"},
    {"demo"},  # its pretrain.py is a program with bars of its own
)
# The predictor and the search judge configs alone: neither models nor runtimes.
BANNED = {
    "predictor": {"torch", "hwsearch.runtime"},
    "search": {"torch", "hwsearch.runtime"},
}
# Libraries that one module, or one room, keeps from all others.
KEEPERS = {
    "optuna": {
        "hwsearch.search.sampler",
        "hwsearch.search.storage",
        "hwsearch.search.study",
        "hwsearch.search.trials",
    },
    "onnxruntime": {"hwsearch.runtime"},
    "openvino": {"hwsearch.runtime"},
    "tensorrt": {"hwsearch.runtime"},
    "tensorrt_rtx_bindings": {"hwsearch.runtime"},
    "sklearn": {"hwsearch.predictor", "hwsearch.data.scenes"},
    "rich": {"hwsearch.cli"},
    "typer": {"hwsearch.cli", "hwsearch.demo.pretrain"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it the import stands.

    What it takes from the front door (`hwsearch.load_supernet`) counts too.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "hwsearch":
            yield f"hwsearch.{node.attr}"


IMPORTS = {module_name(path): set(imports(path)) for path in sorted(PACKAGE.rglob("*.py"))}
# The front door hands out names of all rooms, without importing them.
MODULES = [module for module in IMPORTS if module != "hwsearch"]


def room(module: str) -> str:
    """`supernet` for `hwsearch.supernet.store`."""
    return module.split(".")[1]


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def level(of: str) -> int:
    found = [number for number, rooms in enumerate(LEVELS) if of in rooms]
    assert found, f"hwsearch/{of} has no place in the order: put it into LEVELS"
    return found[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module: str):
    own = room(module)
    ours = {name for name in IMPORTS[module] if name.startswith("hwsearch.")}
    for name in ours - {"hwsearch.__version__"}:
        other = room(name)
        assert own == other or level(other) < level(own), f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in BANNED])
def test_predictor_and_search_know_neither_models_nor_runtimes(module: str):
    for name in IMPORTS[module]:
        assert not any(is_within(name, banned) for banned in BANNED[room(module)]), name


@pytest.mark.parametrize("library", KEEPERS)
def test_a_library_stays_with_its_keeper(library: str):
    users = {m for m in MODULES if any(is_within(name, library) for name in IMPORTS[m])}
    strangers = {
        user for user in users if not any(is_within(user, keeper) for keeper in KEEPERS[library])
    }
    assert not strangers


def test_the_order_names_no_room_that_is_gone():
    assert set.union(*LEVELS) == {room(module) for module in MODULES}
