"""Stations and a coordinator in one process: what the tests of their flows share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.results import MetricsDocument
from flows.stations import station_client, station_coordinator
from tests.conftest import experiment_values

STATIONS = ["station-a", "station-b", "station-c"]


def run_station(monkeypatch: pytest.MonkeyPatch, data: Path, store: Path, parameters: dict[str, Any]) -> Any:
    """One run of a station in its own environment."""
    with monkeypatch.context() as environment:
        environment.setenv("FEDPATCH_STATION", data.name)
        environment.setenv("FEDPATCH_DATASET", str(data))
        environment.setenv("FEDPATCH_STORE", str(store))
        config = ExperimentConfig.model_validate(parameters["config"])
        return station_client(**{**parameters, "config": config}, return_state=True)


def values(tmp_path: Path, **sections: Any) -> dict[str, Any]:
    """What the coordinator is given: no data set."""
    made = experiment_values(Path("nowhere"), Path("nowhere"), tmp_path / "run", **sections)
    return {**made, "dataset": {}, "runtime": {"out": str(tmp_path / "run")}}


def coordinate(config: dict[str, Any], stations: list[str] = STATIONS) -> Any:
    return station_coordinator(ExperimentConfig.model_validate(config), stations, return_state=True)


def document_of(out: Path) -> MetricsDocument:
    return MetricsDocument.model_validate_json((out / "metrics.json").read_text())
