"""docs/troubleshooting.md quotes messages that the code gives, and keys that a configuration has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from data_contracts.config import ExperimentConfig

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
SECTIONS = {name: value for name, value in ExperimentConfig().model_dump().items() if isinstance(value, dict)}


def _literals() -> list[str]:
    """Every string of the product, with ... for what an f-string puts in."""
    found = []
    for package in ("data_contracts", "pipeline_lib", "tasks", "flows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(v.value if isinstance(v, ast.Constant) else "..." for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


LITERALS = _literals()
MESSAGES = re.findall(r"^\| `([^`]+)` \|", TEXT.split("## Messages")[1], flags=re.MULTILINE)


def test_there_are_messages() -> None:
    assert len(MESSAGES) >= 15


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_one_that_the_code_gives(message: str) -> None:
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
    assert any(re.search(pattern, literal) for literal in LITERALS), message


def test_every_key_exists() -> None:
    keys = re.findall(r"`(?:--set )?(\w+)\.(\w+)[^`]*`", TEXT)
    named = [(section, key) for section, key in keys if section in SECTIONS]
    assert len(named) >= 20
    assert not [f"{section}.{key}" for section, key in named if key not in SECTIONS[section]]
