"""Which of TensorRT's classes and members a module's source uses, found by reading it.

The source is never run. Types are followed from where they are certain: `trt`, the module; what
its classes make; what their methods give, by the signatures in `tables.json`; and parameters
annotated `Any`, attributes and functions of the package whose names stand in the tables below.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from tables import Use, result_class

# What a parameter annotated `Any`, or an attribute of self, holds when it has this name.
OBJECTS = {
    "trt": "module",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "monitor": "IProgressMonitor",
    "logger": "ILogger",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "runtime_config": "IRuntimeConfig",
}
# The same for attributes of other objects, and for what functions of the package give.
ATTRIBUTES = {"trt": "record", "engine": "ICudaEngine", "logger": "ILogger"}
FUNCTIONS: dict[str, str | tuple[str, ...]] = {
    "new_context": "IExecutionContext",
    "ready_context": "IExecutionContext",
    "layer_profiler": "IProfiler",
    "build_monitor": "IProgressMonitor",
    "new_builder": "Builder",
    "parsed": ("INetworkDefinition", "OnnxParser"),
}
# Parameters and functions annotated `Any` that are no objects of TensorRT.
OTHERS = {"nvml", "end_event", "_locked", "_process_logger"}
_MODULE, _RECORD = "module", "record"

Types = dict[str, str]


def find_uses(source: str) -> set[Use]:
    """All uses in a module's source.

    Raises:
        ValueError: a parameter or a function annotated `Any` stands in none of these tables.
    """
    reader = _Reader()
    reader.read(ast.parse(source), {})
    return reader.uses


class _Reader:
    """Walks statements in order, and knows the type of each name at that point.

    A type is a class's name for an object of it, `type X` for the class X itself, `X.y` for a
    method, `list X`, or the module, or hwsearch's record around it.
    """

    def __init__(self) -> None:
        self.uses: set[Use] = set()

    def read(self, node: ast.AST, types: Types) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            self._read_function(node, types)
        elif isinstance(node, ast.ClassDef):
            self._read_class(node, types)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found = self.type_of(node.value, types) if node.value else None
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._bind(target, found, types)
        elif isinstance(node, ast.For):
            self._bind(node.target, _element(self.type_of(node.iter, types)), types)
            for inner in [*node.body, *node.orelse]:
                self.read(inner, types)
        elif isinstance(node, ast.withitem):
            found = self.type_of(node.context_expr, types)
            if node.optional_vars:
                self._bind(node.optional_vars, found, types)
        elif isinstance(node, ast.expr):
            self.type_of(node, types)
        else:
            for child in ast.iter_child_nodes(node):
                self.read(child, types)

    def type_of(self, node: ast.expr, types: Types) -> str | None:  # noqa: PLR0911
        if isinstance(node, ast.Name):
            return types.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._type_of_attribute(node, types)
        if isinstance(node, ast.Call):
            return self._type_of_call(node, types)
        if isinstance(node, ast.Subscript):
            self.type_of(node.slice, types)
            return _element(self.type_of(node.value, types))
        if isinstance(node, ast.NamedExpr):
            found = self.type_of(node.value, types)
            self._bind(node.target, found, types)
            return found
        if isinstance(node, ast.Lambda):
            self._read_function(node, types)
            return None
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            return self._type_of_comprehension(node, types)
        found = [
            self.type_of(child, types)
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.expr)
        ]
        if isinstance(node, ast.BoolOp | ast.IfExp):
            return next(filter(None, found), None)
        if isinstance(node, ast.List | ast.Tuple) and found and found[0]:
            return f"list {found[0]}"
        return None

    def _type_of_attribute(self, node: ast.Attribute, types: Types) -> str | None:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return types.get(f"self.{node.attr}") or OBJECTS.get(node.attr.lstrip("_"))
        owner = self.type_of(node.value, types)
        return self._member(owner, node.attr) if owner else ATTRIBUTES.get(node.attr)

    def _member(self, owner: str | None, name: str) -> str | None:
        if owner == _RECORD:
            return _MODULE if name == "module" else None
        if owner == _MODULE:
            self._note(Use(name, ""))
            return f"type {name}"
        if (
            owner is None
            or owner.startswith(("list ", "tuple "))
            or "." in owner
            or name.startswith("__")
        ):
            return None
        of = owner.removeprefix("type ")
        self._note(Use(of, name))
        is_value = owner != of and not name.startswith("_")
        return of if is_value and result_class(of, name) is None else f"{of}.{name}"

    def _type_of_call(self, node: ast.Call, types: Types) -> str | None:  # noqa: PLR0911
        arguments = [self.type_of(argument, types) for argument in node.args]
        for keyword in node.keywords:
            self.type_of(keyword.value, types)
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                return self._member(arguments[0], name.value)
            return (arguments[0] or "").removeprefix("type ") or None
        if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            given = FUNCTIONS[node.func.id]
            return given if isinstance(given, str) else f"tuple {' '.join(given)}"
        called = self.type_of(node.func, types)
        if called is None:
            return None
        call = (len(node.args), tuple(keyword.arg or "" for keyword in node.keywords))
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        if called.startswith("type "):
            owner = called.removeprefix("type ")
            self._note(Use(owner, "__init__", None if starred else call))
            return owner
        owner, _, member = called.partition(".")
        if not member:
            return None
        self._note(Use(owner, member, None if starred else call))
        return result_class(owner, member)

    def _type_of_comprehension(self, node: Any, types: Types) -> str | None:
        inner = dict(types)
        for generator in node.generators:
            found = _element(self.type_of(generator.iter, inner))
            self._bind(generator.target, found, inner)
            for condition in generator.ifs:
                self.type_of(condition, inner)
        if isinstance(node, ast.DictComp):
            self.type_of(node.key, inner)
            self.type_of(node.value, inner)
            return None
        found = self.type_of(node.elt, inner)
        return f"list {found}" if found else None

    def _read_function(self, node: Any, types: Types) -> None:
        inner = dict(types)
        returns = ast.unparse(node.returns) if getattr(node, "returns", None) else ""
        if re.search(r"\bAny\b", returns) and node.name not in {*FUNCTIONS, *OTHERS}:
            raise ValueError(f"say in FUNCTIONS or OTHERS what the function {node.name!r} gives")
        arguments = node.args
        for default in [*arguments.defaults, *filter(None, arguments.kw_defaults)]:
            self.type_of(default, types)
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            annotation = ast.unparse(argument.annotation) if argument.annotation else ""
            inner.pop(argument.arg, None)
            found = _annotated(argument.arg, annotation)
            if found:
                inner[argument.arg] = found
        body = node.body if isinstance(node.body, list) else [node.body]
        for statement in body:
            self.read(statement, inner)

    def _read_class(self, node: ast.ClassDef, types: Types) -> None:
        bases = [self.type_of(base, types) for base in node.bases]
        for base in bases:
            if base and base.startswith("type "):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        # An override: TensorRT calls it, with what its own method takes.
                        given = len(inner.args.args) - 1
                        self._note(Use(base.removeprefix("type "), inner.name, (given, ())))
        inner_types = dict(types)
        for statement in node.body:
            self.read(statement, inner_types)

    def _bind(self, target: ast.expr, found: str | None, types: Types) -> None:
        if isinstance(target, ast.Name):
            types.pop(target.id, None)
            if found:
                types[target.id] = found
        elif isinstance(target, ast.Tuple):
            parts = (found or "").removeprefix("tuple ").split()
            if not (found or "").startswith("tuple ") or len(parts) != len(target.elts):
                parts = ["None"] * len(target.elts)
            for part, of in zip(target.elts, parts, strict=True):
                self._bind(part, None if of == "None" else of, types)
        else:
            self.type_of(target, types)

    def _note(self, use: Use) -> None:
        self.uses.add(use)


def _annotated(name: str, annotation: str) -> str | None:
    if annotation == "Any":
        if name not in OBJECTS and name not in OTHERS:
            raise ValueError(f"say in OBJECTS or OTHERS what the parameter {name!r} holds")
        return OBJECTS.get(name)
    return _RECORD if re.match(r"TensorRT\b", annotation) else None


def _element(found: str | None) -> str | None:
    return found.removeprefix("list ") if found and found.startswith("list ") else None
