"""The UI's form of an experiment: what most people set first, the rest folded, and everything still accepted."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from data_contracts.config import ExperimentConfig
from flows.experiment import centralized_experiment, federated_experiment
from flows.stations import station_coordinator


def schema_of(flow: Any) -> dict[str, Any]:
    schema: dict[str, Any] = parameter_schema(flow).model_dump_for_openapi()
    return schema


@pytest.mark.parametrize(
    ("flow", "first", "mode"),
    [
        (centralized_experiment, ["name", "dataset", "model", "seed"], "centralized"),
        (federated_experiment, ["name", "dataset", "model", "federated", "seed"], "federated"),
        (station_coordinator, ["name", "dataset", "model", "federated", "seed"], "federated"),
    ],
)
def test_the_short_part_comes_first_and_the_mode_is_the_flows(flow: Any, first: list[str], mode: str) -> None:
    definitions = schema_of(flow)["definitions"]
    fields = definitions["ExperimentConfig"]["properties"]
    assert list(fields)[: len(first)] == first
    assert [field["position"] for field in fields.values()] == list(range(len(fields)))
    assert set(fields) == set(ExperimentConfig.model_fields)
    folded = {name for name, field in fields.items() if field.get("default", 0) is None}
    assert folded == {name for name in fields if name.islower()} - {*first}
    assert definitions["FederatedConfig"]["properties"]["mode"]["default"] == mode
    if "federated" in first:
        assert fields["federated"]["default"]["mode"] == mode
    assert next(iter(definitions["DatasetConfig"]["properties"])) == "root"
    assert list(definitions["ModelConfig"]["properties"])[:2] == ["backbone", "coreset_percentage"]


@pytest.mark.parametrize(
    ("config", "n_errors"),
    [
        ({}, 0),
        ({"dataset": {"root": "/data"}, "preprocessing": None, "runtime": None}, 0),
        (ExperimentConfig().model_dump(mode="json"), 0),  # config.yaml of a run, with every key
        ({"model": {"coreset_percentage": 7}}, 1),
        ({"runtime": {"workres": 2}}, 1),
    ],
)
def test_what_was_accepted_still_is_and_what_is_wrong_is_refused(config: dict[str, Any], n_errors: int) -> None:
    errors = validate({"config": config}, schema_of(federated_experiment), raise_on_error=False)
    assert (len(errors) > 0) == (n_errors > 0), errors
    if not n_errors:
        made = ExperimentConfig.model_validate(config)
        assert made.preprocessing == ExperimentConfig().preprocessing
