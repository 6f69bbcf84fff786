"""Reading a configuration: YAML, overrides from the command line, and errors of one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read a YAML file, apply overrides such as `dataset.root=/data`, and validate.

    `name` is the file's stem unless the file gives one. Raises ConfigError of one line: which key, what it got, what
    it accepts.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got a {type(values).__name__}")
    return parse_config({"name": path.stem, **values}, overrides)


def parse_config(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Validate values, after applying overrides. Raises ConfigError of one line."""
    merged = apply_overrides(values, overrides)
    try:
        return ExperimentConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error)) from None


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b=c` set; c is read as YAML. Raises ConfigError for anything else."""
    merged = _copy(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise ConfigError(f"--set takes key=value such as model.coreset_percentage=0.05, got {override!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {key}: {text!r} is not a YAML value") from error
        target = merged
        for part in parts[:-1]:
            inner = target.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {key}: {part} is not a section, but {inner!r}")
            target = inner
        target[parts[-1]] = value
    return merged


def describe_validation_error(error: ValidationError) -> str:
    """The first problems of a pydantic error as one line: key, what it got, what it accepts."""
    lines = []
    for problem in error.errors(include_url=False)[:3]:
        key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("function-", "constrained-")))
        got = problem.get("input")
        if problem["type"] == "extra_forbidden":
            section, _, name = key.rpartition(".")
            known = ", ".join(_known_keys(section))
            lines.append(f"{key}: unknown key {name!r}; {section or 'the top level'} accepts {known}")
        elif problem["type"] == "value_error":
            lines.append(f"{key or 'configuration'}: {problem['ctx']['error']}")
        else:
            message = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            lines.append(f"{key}: got {got!r}, accepts {message}")
    more = error.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def write_config(config: ExperimentConfig, path: Path) -> None:
    """Write the resolved configuration as YAML that `load_config` reads back to the same config."""
    values = config.model_dump(mode="json")
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8")


def _known_keys(section: str) -> list[str]:
    model: Any = ExperimentConfig
    for part in section.split(".") if section else []:
        field = model.model_fields.get(part)
        model = field.annotation if field else None
        if model is None or not hasattr(model, "model_fields"):
            return ["other keys"]
    return list(model.model_fields)


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in values.items()}
