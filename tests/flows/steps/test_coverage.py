"""Coverage of the final banks in runs: from the clients' own features, cached, in metrics and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks.clients
from data_contracts.config import ExperimentConfig
from data_contracts.results import MetricsDocument
from flows.experiment import federated_experiment
from pipeline_lib.features.extraction import read_patches
from tests.conftest import experiment_values

pytestmark = pytest.mark.usefixtures("prefect_server")
SETTINGS: list[Any] = [
    {"upload": {"codec": "pq"}, "federated": {"num_rounds": 2}, "aggregation": {"bank_scope": "global"}},
    pytest.param({"federated": {"mode": "local_only"}}, marks=pytest.mark.slow),
]


def run(values: dict[str, Any]) -> MetricsDocument:
    state: Any = federated_experiment(ExperimentConfig.model_validate(values), return_state=True)
    assert state.is_completed()
    return MetricsDocument.model_validate_json((Path(values["runtime"]["out"]) / "metrics.json").read_text())


def bank_file(out: Path, client: str, category: str) -> Path:
    """The final bank that the client's patches of the category are measured by."""
    directories = (out / "banks", out / "clients" / client / "banks")
    candidates = [directory / f"{bank}.npz" for directory in directories for bank in (category, "all")]
    return next(path for path in candidates if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("sections", SETTINGS)
def test_every_client_says_how_far_its_patches_lie_from_the_final_bank(
    sections: dict[str, Any], tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[Any] = []
    original = tasks.clients.coverage.client_coverage

    def recorded(table: Any, store: Any, banks: Any, **more: Any) -> Any:
        tables.append((table, store, original(table, store, banks, **more)))
        return tables[-1][2]

    monkeypatch.setattr(tasks.clients.coverage, "client_coverage", recorded)
    sections = {**sections, "evaluation": {"coverage": True}}
    values = experiment_values(tiny_root, store, tmp_path / "run", **sections)
    clients = run(values).federation.clients
    assert len(tables) == len(clients)
    assert all(set(client.coverage) == {"pipe_clip", "tank_screw"} for client in clients.values())
    for table, at_client, own in tables:
        name = next(name for name, client in clients.items() if client.coverage == own)
        for category, found in own.items():
            patches = read_patches(table[table.category == category], at_client).astype(np.float64)
            with np.load(bank_file(tmp_path / "run", name, category)) as bank:
                distances = np.linalg.norm(patches[:, None] - bank["features"][None], axis=2).min(axis=1)
            assert found.patches == len(distances)
            assert found.covering_radius == pytest.approx(distances.max(), rel=1e-4)
            assert found.q90 == pytest.approx(np.quantile(distances, 0.9), rel=1e-4)
    assert sum(found.patches for c in clients.values() for found in c.coverage.values()) == sum(
        client.patches for client in clients.values()
    )
    assert "Coverage: distances" in (tmp_path / "run" / "report.html").read_text()

    tables.clear()
    again = experiment_values(tiny_root, store, tmp_path / "again", **sections)
    assert run(again).federation.clients == clients
    assert tables == []


def test_it_is_measured_only_where_asked_for_and_costs_no_run(
    tiny_root: Path, tmp_path: Path, finished: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(tasks.clients.coverage, "client_coverage", broken)
    plain = MetricsDocument.model_validate_json((finished / "run" / "metrics.json").read_text())
    asked = run(experiment_values(tiny_root, store, tmp_path / "asked", evaluation={"coverage": True}))
    assert (asked.config_hash, asked.categories) == (plain.config_hash, plain.categories)
    assert asked.federation == plain.federation
    assert all(client.coverage == {} for client in asked.federation.clients.values())
    assert "coverage" in asked.timings_s
    assert "coverage" not in plain.timings_s
    assert "Coverage: distances" not in (finished / "run" / "report.html").read_text()
