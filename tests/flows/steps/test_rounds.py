"""Several rounds in the flow: the same banks as the library's federation, checkpoints, cache, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.federation import FederationRound
from data_contracts.results import MetricsDocument
from flows.experiment import federated_experiment
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.models.federated_patchcore import FederatedPatchCore
from tests.conftest import experiment_values

pytestmark = pytest.mark.usefixtures("prefect_server")

Patch = pytest.MonkeyPatch


def run(values: dict[str, Any]) -> Any:
    return federated_experiment(ExperimentConfig.model_validate(values), return_state=True)


def metrics(out: Path) -> MetricsDocument:
    return MetricsDocument.model_validate_json((out / "metrics.json").read_text())


def bank(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        rows: np.ndarray = arrays["features"]
        return rows


def poison(monkeypatch: Patch, poisoned_banks: dict[str, set[str]]) -> None:
    """Let clients send NaN: client -> for which banks."""
    import tasks.clients

    original = tasks.clients.rounds.select_client_coreset

    def poisoned(table: pd.DataFrame, store: Any, client_id: str, *args: Any, **kwargs: Any) -> Any:
        coresets = original(table, store, client_id, *args, **kwargs)
        return [
            dataclasses.replace(c, arrays={"rows": np.full((c.n_rows, c.dim), np.nan, np.float32)})
            if c.bank in poisoned_banks.get(client_id, ())
            else c
            for c in coresets
        ]

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", poisoned)


def test_rounds_in_the_flow_give_the_banks_of_the_library_and_a_convergence_table(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: Patch
) -> None:
    values = experiment_values(tiny_root, store, tmp_path / "run", federated={"num_rounds": 3})
    assert run(values).name == "Completed"
    document = metrics(tmp_path / "run")
    rounds = document.federation.rounds
    assert [one.round for one in rounds] == [1, 2, 3]
    sent = [sum(one.bank_rows.values()) for one in rounds]
    assert sent[0] < sent[1] < sent[2]
    assert sum(one.upload_rows for one in rounds) == sum(c.coreset_rows for c in document.federation.clients.values())
    assert max(rounds[2].covering_radius.values()) < max(rounds[0].covering_radius.values())
    assert rounds[0].mean.image_auroc is not None
    assert rounds[2].mean == document.mean
    assert "Rounds" in (tmp_path / "run" / "report.html").read_text()
    state = FederationRound.model_validate_json((tmp_path / "run" / "rounds" / "round_002.json").read_text())
    assert {upload.round for client in state.uploads for upload in client.uploads} == {2}
    assert len(bank(tmp_path / "run" / "rounds" / "round_001" / "pipe_clip.npz")) == rounds[0].bank_rows["pipe_clip"]

    library = FederatedPatchCore(ExperimentConfig.model_validate(values))
    library.setup_clients(AutoVIDataset(tiny_root))
    history = library.train()
    assert [one.bank_rows for one in history] == [one.bank_rows for one in rounds]
    assert [one.download_bytes for one in history] == [one.download_bytes for one in rounds]
    for name, merged in library.server.banks.items():
        assert np.array_equal(merged.rows, bank(tmp_path / "run" / "banks" / f"{name}.npz"))

    import tasks.clients

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a finished round is done again")

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", never)
    again = experiment_values(tiny_root, store, tmp_path / "again", federated={"num_rounds": 3})
    assert run(again).name == "Completed"
    assert metrics(tmp_path / "again").categories == document.categories


def test_a_client_that_fails_in_the_second_round_stays_in_the_banks_and_is_mended_by_a_retry(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: Patch
) -> None:
    import tasks.clients

    original = tasks.clients.rounds.select_client_coreset
    done: list[tuple[str, int]] = []

    def failing(table: pd.DataFrame, store: Any, client_id: str, settings: Any, **kwargs: Any) -> Any:
        if (client_id, settings.round) == ("client_1", 2):
            raise OSError(28, "No space left on device")
        done.append((client_id, settings.round))
        return original(table, store, client_id, settings, **kwargs)

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", failing)
    federated = {"num_rounds": 2, "min_clients": 2}
    state = run(experiment_values(tiny_root, store, tmp_path / "a", federated=federated))
    assert state.name == "Partial"
    assert "client client_1 failed in round 2: OSError" in state.message
    document = metrics(tmp_path / "a")
    assert "client_1" in document.federation.clients
    assert document.federation.failed_clients == {}
    assert list(document.federation.rounds[1].failed) == ["client_1"]
    assert any("round 2" in warning for warning in document.warnings)

    strict = {"num_rounds": 2, "min_clients": 3}
    state = run(experiment_values(tiny_root, store, tmp_path / "b", federated=strict))
    assert state.is_failed()
    assert "quorum not met in round 2, 2 of 3" in state.message

    monkeypatch.setattr(
        tasks.clients.rounds,
        "select_client_coreset",
        lambda table, store, client_id, settings, **kwargs: (
            done.append((client_id, settings.round)) or original(table, store, client_id, settings, **kwargs)
        ),
    )
    done.clear()
    state = run(experiment_values(tiny_root, store, tmp_path / "b", federated=strict))
    assert state.name == "Completed"
    assert done == [("client_1", 2)]


def test_the_server_goes_on_without_what_is_not_finite(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: Patch
) -> None:
    poison(monkeypatch, {"client_1": {"pipe_clip", "tank_screw"}, "client_2": {"pipe_clip"}})

    def state_of(out: str, min_clients: int) -> Any:
        model, federated = {"coreset_percentage": 0.2}, {"min_clients": min_clients}
        return run(experiment_values(tiny_root, store, tmp_path / out, model=model, federated=federated))

    state = state_of("a", 2)
    assert state.name == "Partial"
    assert "upload of client client_2 for pipe_clip refused" in state.message
    document = metrics(tmp_path / "a")
    assert set(document.federation.clients) == {"client_0", "client_2"}
    assert list(document.federation.failed_clients) == ["client_1"]  # the other one is in the other bank
    assert "not finite" in document.federation.failed_clients["client_1"]
    assert sorted(document.federation.refused_uploads) == ["client_1", "client_2"]
    assert "not finite" in document.federation.refused_uploads["client_1"]
    left, clients = document.federation.bytes_left_by_kind, document.federation.clients
    assert {name for name, kinds in left.items() if kinds["refused_coresets"]} == {"client_1", "client_2"}
    assert left["client_1"]["coresets"] == 0
    assert {name: left[name]["coresets"] for name in clients} == {n: c.upload_bytes for n, c in clients.items()}
    assert all(kinds["manifests"] > 200 for kinds in left.values())
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert "not finite" in result["failed_clients"]["client_1"]
    assert "not finite" in (tmp_path / "a" / "report.html").read_text()
    for name, there in (("pipe_clip", ["client_0"]), ("tank_screw", ["client_0", "client_2"])):
        with np.load(tmp_path / "a" / "banks" / f"{name}.npz") as arrays:
            assert list(arrays["client_ids"]) == there

    state = state_of("b", 3)
    assert state.is_failed()
    assert "quorum not met, 2 of 3" in state.message
    assert "not finite" in state.message
