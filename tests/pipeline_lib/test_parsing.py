"""Parsing beside other threads: what NumPy and the cache keys do is done again where the interpreter stumbles."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.parsing import parsed


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was parsed; the first two times the interpreter stumbles."""
    original, found = ast.parse, []

    def stumbling(text: str, *args: Any, **more: Any) -> ast.AST:
        found.append(text)
        if len(found) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=153, after=53)")
        return original(text, *args, **more)

    monkeypatch.setattr(ast, "parse", stumbling)
    return found


def test_it_is_done_again_where_the_interpreter_stumbles_and_mistakes_are_not_hidden(tried: list[str]) -> None:
    assert ast.unparse(parsed(lambda: ast.parse("x = 1"))) == "x = 1"
    assert len(tried) == 3
    with pytest.raises(SyntaxError):
        parsed(lambda: ast.parse("x ="))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_are_read_where_the_interpreter_stumbles(tmp_path: Path, tried: list[str], suffix: str) -> None:
    store, rows = ArtifactStore(tmp_path), np.arange(6.0).reshape(3, 2)
    if suffix == "npy":
        found = store.read_array(store.write_array("coverage_curve", rows))
    else:
        found = store.read_arrays(store.write_arrays("memory_bank", {"features": rows}, rows=3))["features"]
    np.testing.assert_array_equal(found, rows)
    assert len(tried) >= 3
