"""Modules that the keys of the cache name as text are there: one that moved would be an error in a run."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from tests.conftest import ROOT


def named() -> set[str]:
    """Every string that `code_version` is called with."""
    found = set()
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "pipeline_lib").rglob("*.py")]:
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "code_version":
                found |= {one.value for one in node.args if isinstance(one, ast.Constant)}
    return found


def test_every_module_that_a_key_names_is_there() -> None:
    names = named()
    assert len(names) >= 4
    assert [name for name in sorted(names) if importlib.util.find_spec(name) is None] == []


def test_the_init_of_a_package_imports_nothing() -> None:
    inits = [*(ROOT / "pipeline_lib").rglob("__init__.py"), *(ROOT / "tasks").rglob("__init__.py")]
    assert len(inits) > 20
    for path in inits:
        assert len(ast.parse(path.read_text(encoding="utf-8")).body) <= 1, path
