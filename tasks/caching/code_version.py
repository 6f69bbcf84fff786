"""The version of the code behind a task: a hash of its body and of all library modules that it comes to."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from prefect import Task

from data_contracts.config import canonical_hash
from pipeline_lib.storage.parsing import parsed

CODE_PACKAGES = ("pipeline_lib", "data_contracts")
COMPUTING = {  # modules of others that decide what an artifact holds -> the package whose version counts
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "faiss": "faiss-cpu",
    "PIL": "pillow",
}
Tree = TypeVar("Tree", bound=ast.AST)


def task_version(task: Task[..., Any]) -> str:
    """Version of the code behind a task: its own source and the library modules that its body names."""
    source = parsed(lambda: ast.parse(inspect.getsource(sys.modules[task.fn.__module__])))
    body = next(n for n in source.body if isinstance(n, ast.FunctionDef) and n.name == task.fn.__name__)
    used = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
    names = {name: value.__name__ for name, value in task.fn.__globals__.items() if isinstance(value, ModuleType)}
    modules = sorted(names[name] for name in used & set(names) if names[name].split(".")[0] in CODE_PACKAGES)
    body.decorator_list = []
    own = hashlib.sha256(ast.dump(_without_docstrings(body)).encode()).hexdigest()
    return canonical_hash(
        [own, code_version(*modules, "pipeline_lib.storage.artifact_store", "data_contracts.tables")]
    )[:16]


@functools.cache
def code_version(*modules: str) -> str:
    """Hash of the code of these modules and of all of ours that they import, without comments and docstrings.

    In it are the versions of the COMPUTING packages that any of them imports: by module, so that FAISS, whose threads
    `pipeline_lib.configuration.hardware` sets, counts wherever a device is picked.
    """
    digests: dict[str, str] = {}
    packages: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in digests or (code := _module_code(module)) is None:
            continue
        digests[module] = code.digest
        pending += [name for name in code.imports if name.split(".")[0] in CODE_PACKAGES]
        packages |= {COMPUTING[top] for name in code.imports if (top := name.split(".")[0]) in COMPUTING}
    return canonical_hash([digests, {package: _installed_version(package) for package in packages}])[:16]


@dataclass(frozen=True)
class _ModuleCode:
    digest: str
    imports: tuple[str, ...]


@functools.cache
def _module_code(module: str) -> _ModuleCode | None:
    """A module's code and what it imports; None where there is no such module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).read_text(encoding="utf-8")
    tree = parsed(lambda: ast.parse(source))
    imports = tuple(_imported_modules(tree))
    return _ModuleCode(hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), imports)


def _installed_version(package: str) -> str | None:
    """None for what was not installed as a package, such as a build of FAISS under another name."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _imported_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline_lib.when_needed":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if _is_module(node.module, alias.name))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _is_module(package: str, name: str) -> bool:
    if package.split(".")[0] not in CODE_PACKAGES:
        return False
    spec = importlib.util.find_spec(package)  # finding a module within imports what it is looked for in
    if spec is None or spec.submodule_search_locations is None:
        return False
    return importlib.util.find_spec(f"{package}.{name}") is not None


def _without_docstrings(tree: Tree) -> Tree:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
