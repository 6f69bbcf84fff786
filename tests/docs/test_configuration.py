"""docs/configuration.md is what the models say, and every setting is explained."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from data_contracts.config import ExperimentConfig, Section
from pipeline_lib.configuration import reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_page_is_current() -> None:
    assert PAGE.read_text() == reference.config_reference(), "run: fedpatch config-reference > docs/configuration.md"


def test_every_key_of_a_configuration_has_a_row() -> None:
    page = PAGE.read_text()
    values = ExperimentConfig().model_dump()
    keys = [f"{name}.{key}" for name, section in values.items() if isinstance(section, dict) for key in section]
    assert len(keys) > 40
    assert not [key for key in keys if page.count(f"| `{key}` |") != 1]


def test_types_limits_and_defaults_in_words() -> None:
    class Example(Section):
        """Some settings."""

        share: float = Field(0.1, gt=0, le=1, description="of all")
        sizes: dict[str, tuple[int, int]] = Field({}, description="a size each")
        choice: int | str | None = Field(None, description="a | b")
        needed: bool = Field(description="yes or <no>")

    table = reference._table("Title", Example, prefix="e.")
    assert "| `e.share` | number, above 0 and at most 1 | `0.1` | of all |" in table
    assert "| `e.sizes` | text: 2 x integer | `{}` | a size each |" in table
    assert "| `e.choice` | integer or text |  | a &#124; b |" in table
    assert "| `e.needed` | true, false | none: give one | yes or &lt;no> |" in table


def test_a_setting_without_meaning_is_refused() -> None:
    class Example(Section):
        """Some settings."""

        silent: int = 1

    with pytest.raises(ValueError, match=r"Example\.silent has no description"):
        reference._table(None, Example)
