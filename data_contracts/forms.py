"""How Prefect's UI lays out `config`: what most people set comes first, whole sections that few do are folded.

The schema alone is changed, not what is accepted: every key stays, and a folded section that is left as it is comes
as null, which is its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

FIRST_KEYS = {
    "dataset": ("root", "categories", "layout"),
    "model": ("backbone", "coreset_percentage"),
    "federated": ("num_clients", "partitioning", "client_assignments", "min_clients", "mode"),
}


@dataclass(frozen=True)
class ExperimentForm:
    """The form of an ExperimentConfig; `shown` are the keys that come first, sections among them open.

    Goes into the annotation of a flow's parameter: `config: Annotated[ExperimentConfig, ExperimentForm(...)]`.
    """

    shown: tuple[str, ...]
    mode: Literal["centralized", "federated"]  # what the flow makes of a `federated.mode` that is not given

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reference = handler(core_schema)
        experiment = handler.resolve_ref_schema(reference)
        experiment["properties"] = _in_order(experiment["properties"], self.shown)
        for key, field in experiment["properties"].items():
            if "$ref" not in field:
                continue
            section = handler.resolve_ref_schema(field)
            section["title"] = key.capitalize()
            section["properties"] = _in_order(section["properties"], FIRST_KEYS.get(key, ()))
            if key == "federated":
                section["properties"]["mode"]["default"] = self.mode
                field["default"] = {**field["default"], "mode": self.mode}
            if key not in self.shown:
                field["anyOf"] = [{"$ref": field.pop("$ref")}, {"type": "null"}]
                field |= {"title": key.capitalize(), "description": section.get("description", ""), "default": None}
        _open_root(experiment["properties"]["dataset"], handler)
        return reference


CENTRALIZED_FORM = ExperimentForm(("name", "dataset", "model"), "centralized")
FEDERATED_FORM = ExperimentForm(("name", "dataset", "model", "federated"), "federated")


def _in_order(properties: dict[str, Any], first: tuple[str, ...]) -> dict[str, Any]:
    """The properties with `first` before the others; `position` says the same where a database sorts the keys."""
    keys = [*first, *(key for key in properties if key not in first)]
    return {key: {**properties[key], "position": position} for position, key in enumerate(keys)}


def _open_root(dataset: dict[str, Any], handler: GetJsonSchemaHandler) -> None:
    """The box for the data set's directory is open: without a default the UI shows a path's, and drops an empty one."""
    dataset["default"] = {key: value for key, value in dataset["default"].items() if key != "root"}
    del handler.resolve_ref_schema(dataset)["properties"]["root"]["default"]
