"""The page of all settings, written from the models that check them, so that it cannot say anything else."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import ExperimentConfig, Extension

HEADER = """# Configuration

Written by `fedpatch config-reference`, from the models in `data_contracts/`. A configuration is a YAML file; an unknown
key is refused, and each key has a default unless it says "give one". `--set section.key=value` changes one key for a
command: `fedpatch plan configs/demo.yaml --set model.coreset_percentage=0.05`. The configuration that was used, with
all defaults, is `config.yaml` in the run directory. A `federated` section makes a run federated unless its `mode` says
otherwise.
"""
BENCHMARK = """## A benchmark

`fedpatch benchmark FILE`: experiments against a baseline. `base` and each experiment hold the keys above.
"""


def config_reference() -> str:
    """All keys with type, default and meaning, as Markdown.

    Raises ValueError naming the first key without a description: a setting that is not explained cannot be chosen.
    """
    parts = [HEADER, _table("At the top", ExperimentConfig, sections=False)]
    for name, field in ExperimentConfig.model_fields.items():
        if (section := _section(field.annotation)) is not None:
            parts.append(_table(f"`{name}`", section, prefix=f"{name}."))
    parts += [BENCHMARK, _table(None, BenchmarkConfig)]
    for name, field in BenchmarkConfig.model_fields.items():
        if (group := _inner_section(field.annotation)) is not None:
            parts.append(_table(f"Each of `{name}`", group))
    return "\n".join(parts).rstrip() + "\n"


def _table(heading: str | None, model: type[BaseModel], *, prefix: str = "", sections: bool = True) -> str:
    lines = [] if heading is None else [f"## {heading}", "", _first_line(model), ""]
    lines += ["| key | accepts | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if not sections and _section(field.annotation) is not None:
            continue
        if not field.description and not _described(field):
            raise ValueError(f"{model.__name__}.{name} has no description")
        meaning = field.description or _described(field)
        cells = (f"`{prefix}{name}`", _accepts(field), _default(field), meaning)
        lines.append(f"| {' | '.join(_escaped(str(cell)) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _inner_section(annotation: Any) -> type[BaseModel] | None:
    """The model of the values of a mapping or list, where there is one."""
    for inner in get_args(annotation):
        if (found := _section(inner) or _inner_section(inner)) is not None:
            return found
    return None


def _described(field: FieldInfo) -> str:
    """The description that the field's type brings along."""
    return next((m.description for m in field.metadata if isinstance(m, FieldInfo) and m.description), "")


def _accepts(field: FieldInfo) -> str:
    words = _type(field.annotation)
    limits = _limits(field.metadata)
    return f"{words}, {limits}" if limits else words


def _limits(metadata: typing.Sequence[Any]) -> str:
    words = []
    for item in metadata:
        match item:
            case annotated_types.Ge(ge=value):
                words.append(f"at least {value:,}")
            case annotated_types.Gt(gt=value):
                words.append(f"above {value}")
            case annotated_types.Le(le=value):
                words.append(f"at most {value:,}")
            case annotated_types.Lt(lt=value):
                words.append(
                    f"below {value:,}" if float(str(value)) < 1e15 else f"below 2^{int(str(value)).bit_length() - 1}"
                )
            case FieldInfo():
                words.append(_limits(item.metadata))
    return " and ".join(word for word in words if word)


def _type(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation == Extension:
        return "a function of your own, `module:function` (docs/extending.md)"
    if origin is Annotated:
        limits = _limits(annotation.__metadata__)
        return f"{_type(inner[0])} {limits}".strip()
    if origin in (Union, types.UnionType):
        return " or ".join(_type(choice) for choice in inner if choice is not type(None))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}" if inner[-1] is Ellipsis else f"{len(inner)} x {_type(inner[0])}"
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"{_type(inner[0])}: {_type(inner[1])}"
    if _section(annotation) is not None:
        return "keys as below"
    names = {int: "integer", float: "number", str: "text", bool: "true, false", Path: "path", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: give one"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, dict) and len(value) > 3:
        return "as AutoVI has them"
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
    return f"`{text}`"


def _escaped(cell: str) -> str:
    """Neither a column's end nor, outside of code, the beginning of HTML."""
    cell = cell.replace("|", "&#124;")
    return cell if "`" in cell else cell.replace("<", "&lt;")
