"""Parsing beside other threads: what NumPy and the cache keys do is done again where the interpreter stumbles."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.parsing import parsed

MESSAGE = "AST constructor recursion depth mismatch (before=153, after=53)"


def stumbling(function: Callable[..., Any], tried: list[Any]) -> Callable[..., Any]:
    """The function, at which the interpreter stumbles the first two times."""

    def called(*args: Any, **more: Any) -> Any:
        tried.append(args)
        if len(tried) < 3:
            raise SystemError(MESSAGE)
        return function(*args, **more)

    return called


def test_it_is_done_again_where_the_interpreter_stumbles_and_mistakes_are_not_hidden() -> None:
    tried: list[Any] = []
    assert ast.unparse(parsed(stumbling(lambda: ast.parse("x = 1"), tried))) == "x = 1"
    assert len(tried) == 3
    with pytest.raises(SyntaxError):
        parsed(lambda: ast.parse("x ="))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_are_read_where_the_interpreter_stumbles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    store, rows, tried = ArtifactStore(tmp_path), np.arange(6.0).reshape(3, 2), list[Any]()
    monkeypatch.setattr(np, "load", stumbling(np.load, tried))
    if suffix == "npy":
        found = store.read_array(store.write_array("patch_features", rows))
    else:
        found = store.read_arrays(store.write_arrays("memory_bank", {"features": rows}, rows=3))["features"]
    np.testing.assert_array_equal(found, rows)
    assert len(tried) == 3
