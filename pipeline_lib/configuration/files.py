"""Reading a configuration: YAML, overrides from the command line, and errors of one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from data_contracts.benchmark import BenchmarkConfig, merge_keys
from data_contracts.config import DEFAULT_BACKBONE, EXTENSION_PATTERN, ExperimentConfig, ModelConfig
from data_contracts.earlier_versions import ADDED_KEYS, REMOVED_KEYS, with_version
from data_contracts.errors import ConfigError, WeightsError
from pipeline_lib.storage.artifact_store import write_file

SEEDS = 3
"""Of a comparison that an experiment's configuration alone asks for: with fewer nothing is called better or worse."""


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read a YAML file, apply overrides such as `dataset.root=/data`, and validate.

    `name` is the file's stem unless the file gives one. Raises ConfigError of one line: which key, what it got, what
    it accepts.
    """
    path = Path(path)
    return parse_config({"name": path.stem, **read_yaml(path)}, overrides)


def load_run_config(directory: Path) -> tuple[ExperimentConfig, dict[str, str]]:
    """What a run directory's config.yaml says, and the keys that are gone in it, such as `federated.turns` -> `relay`.

    Raises ConfigError of one line.
    """
    values = read_yaml(directory / "config.yaml")
    there = [(s, key) for s, key in REMOVED_KEYS if isinstance(values.get(s), dict) and key in values[s]]
    removed = {f"{section}.{key}": values[section].pop(key) for section, key in there}
    return parse_config(as_earlier(values)), removed


def as_earlier(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's config.yaml holds, with what keys that it lacks and names without a version meant before."""
    filled = dict(values)
    for (section, key), unchanged in ADDED_KEYS.items():
        if isinstance(own := filled.get(section) or {}, dict):
            filled[section] = {key: unchanged, **own}
    if isinstance(model := filled["model"], dict):
        filled["model"] = with_version(model, "v2", default=DEFAULT_BACKBONE)
    return filled


def load_benchmark(
    path: Path | str, overrides: Sequence[str] = (), out: Path | None = None, seeds: str | None = None
) -> BenchmarkConfig:
    """Read a benchmark's YAML, or an experiment's, which is compared with all images at one place.

    Overrides address the (base) experiment; `seeds`, such as 42,43,44, take the place of the file's. Raises ConfigError
    of one line.
    """
    path = Path(path)
    if is_benchmark(path):
        values = {"name": path.stem, **read_yaml(path)}
        values["base"] = apply_overrides(values.get("base") or {}, overrides)
    else:
        values = _against_one_place(load_config(path, overrides))
    if out is not None:
        values["out"] = str(out)
    if seeds is not None:
        values["seeds"] = [seed.strip() for seed in seeds.split(",")]
    try:
        return BenchmarkConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error)) from None


def _against_one_place(config: ExperimentConfig) -> dict[str, Any]:
    """A benchmark of an experiment and its centralized twin, with three seeds, so that differences have intervals."""
    mode = "federated" if config.federated.mode == "centralized" else config.federated.mode
    return {
        "name": config.name,
        "base": config.model_dump(mode="json"),
        "experiments": {name: {"federated.mode": name} for name in ("centralized", mode)},
        "seeds": [config.seed + more for more in range(SEEDS)],
    }


def is_benchmark(path: Path | str) -> bool:
    """Whether a YAML file holds a benchmark: keys that no experiment has. Raises ConfigError of one line."""
    return bool({"base", "experiments", "groups"} & set(read_yaml(Path(path))))


def given_weights(model: ModelConfig) -> Path | None:
    """The file that `model.weights_path` names; None without one. Raises WeightsError where it is not there."""
    if model.weights_path is None:
        return None
    path = model.weights_path.expanduser()
    if not path.is_file():
        raise WeightsError(f"model.weights_path: there is no file {path}")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises ConfigError of one line."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got a {type(values).__name__}")
    return values


def parse_config(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Validate values, after applying overrides. Raises ConfigError of one line."""
    merged = apply_overrides(values, overrides)
    try:
        return ExperimentConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error)) from None


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b=c` set; c is read as YAML. Raises ConfigError for anything else."""
    merged = dict(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not all(key.strip().split(".")):
            raise ConfigError(f"--set takes key=value such as model.coreset_percentage=0.05, got {override!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {key}: {text!r} is not a YAML value") from error
        try:
            merged = merge_keys(merged, {key.strip(): value})
        except ValueError as error:
            raise ConfigError(f"--set {error}") from None
    return merged


def describe_validation_error(error: ValidationError) -> str:
    """The first problems of a pydantic error as one line: key, what it got, what it accepts."""
    problems: dict[str, ErrorDetails] = {}
    accepted: dict[str, list[str]] = {}  # a key that takes one of several kinds has a problem with each of them
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"] if not _is_branch(str(part)))
        problems.setdefault(key, problem)
        accepted.setdefault(key, []).append(_accepts(problem))
    inner = [key for key in problems if not any(other.startswith(f"{key}.") for other in problems)]
    lines = [_problem_line(key, problems[key], " or ".join(dict.fromkeys(accepted[key]))) for key in inner[:3]]
    return "; ".join(lines) + (f"; and {len(inner) - 3} more" if len(inner) > 3 else "")


def _is_branch(part: str) -> bool:
    """Whether a part of pydantic's location names a branch of a union or a validator, and no key."""
    return "[" in part or part in ("int", "float", "str") or part.startswith(("function-", "constrained-"))


def _problem_line(key: str, problem: ErrorDetails, accepts: str) -> str:
    match problem["type"]:
        case "extra_forbidden":
            section, _, name = key.rpartition(".")
            if name == "seeds":
                return (
                    f"{key}: an experiment has one seed; several are a benchmark's: fedpatch benchmark FILE --seeds "
                    "42,43,44, or seeds: in a file such as configs/benchmark_seeds.yaml"
                )
            known = ", ".join(_known_keys(section))
            return f"{key}: unknown key {name!r}; {section or 'the top level'} accepts {known}"
        case "value_error":
            return f"{key or 'configuration'}: {problem['ctx']['error']}"
    got = repr(problem["input"])
    return f"{key}: got {got if len(got) <= 80 else got[:77] + '...'}, accepts {accepts}"


def _accepts(problem: ErrorDetails) -> str:
    """What a value should have been, in the words of a YAML file."""
    match problem["type"]:
        case "tuple_type" | "list_type":
            return "a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "keys and values"
        case "int_type" | "int_parsing" | "int_from_float":
            return "a whole number"
        case "float_type" | "float_parsing":
            return "a number"
        case "bool_type" | "bool_parsing":
            return "true or false"
        case "string_type":
            return "text"
        case "string_pattern_mismatch":
            pattern = problem["ctx"]["pattern"]
            return "module:function of your own" if pattern == EXTENSION_PATTERN else f"text that matches {pattern}"
        case "missing":
            return "one more value"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return "a number " + problem["msg"].removeprefix("Input should be ")
    message = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def write_config(config: ExperimentConfig, path: Path) -> None:
    """Write the resolved configuration as YAML that `load_config` reads back to the same config."""
    values = config.model_dump(mode="json")
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    write_file(path, text.encode())


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: otherwise the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _known_keys(section: str) -> list[str]:
    model: Any = ExperimentConfig
    for part in section.split(".") if section else []:
        field = model.model_fields.get(part)
        model = field.annotation if field else None
        if model is None or not hasattr(model, "model_fields"):
            return ["other keys"]
    return list(model.model_fields)
