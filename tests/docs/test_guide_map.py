"""docs/guide_map.md: whatever it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from data_contracts.config import ExperimentConfig
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "guide_map.md").read_text(encoding="utf-8")
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", TEXT)))
FILES = [
    q for q in QUOTED if re.fullmatch(r"[\w/.]+\.(py|md|yaml|ipynb)(::[\w.]+)?", q) and ("/" in q or q == "README.md")
]
KEYS = [q for q in QUOTED if q.split(".")[0] in ExperimentConfig.model_fields and re.fullmatch(r"\w+\.\w+", q)]


def names_in(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What statements define, and what is inside of it."""
    found: dict[str, list[ast.stmt]] = {}
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                found[node.name] = node.body
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = []
    return found


@pytest.mark.parametrize("quoted", FILES)
def test_the_file_and_the_name_in_it_exist(quoted: str) -> None:
    path, _, dotted = quoted.partition("::")
    assert (ROOT / path).is_file(), path
    if not dotted:
        return
    body = ast.parse((ROOT / Path(path)).read_text(encoding="utf-8")).body
    for name in dotted.split("."):
        names = names_in(body)
        assert name in names, f"{path} has no {name}"
        body = names[name]


@pytest.mark.parametrize("key", KEYS)
def test_the_configuration_has_the_key(key: str) -> None:
    section, name = key.split(".")
    fields = ExperimentConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    assert name in fields


def test_enough_is_named_that_the_pattern_must_have_matched() -> None:
    assert len(FILES) > 70
    assert len(KEYS) > 20
