"""Clients that train alone: a bank each, scored on the test images, in the results by client and as a mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ArtifactError
from data_contracts.results import MetricsDocument
from flows.experiment import federated_experiment
from pipeline_lib.inspection.run_model import open_run_model
from tests.conftest import experiment_values

pytestmark = pytest.mark.usefixtures("prefect_server")


def run(values: dict[str, Any]) -> Any:
    return federated_experiment(ExperimentConfig.model_validate(values), return_state=True)


def metrics(out: Path) -> MetricsDocument:
    return MetricsDocument.model_validate_json((out / "metrics.json").read_text())


def test_each_client_is_scored_alone_and_the_category_is_the_mean(tiny_root: Path, tmp_path: Path, store: Path) -> None:
    out = tmp_path / "run"
    sections = {"federated": {"mode": "local_only"}, "upload": {"codec": "pq", "noise_sigma": 3.0}}
    assert run(experiment_values(tiny_root, store, out, **sections)).name == "Completed"
    document = metrics(out)
    assert list(document.local_clients) == ["client_0", "client_1", "client_2"]
    alone = [own["pipe_clip"].image_auroc or 0.0 for own in document.local_clients.values()]
    assert document.categories["pipe_clip"].image_auroc == pytest.approx(np.mean(alone))
    assert document.local_clients["client_0"]["pipe_clip"].ci95["image_auroc"] is not None
    assert sum(client.upload_bytes for client in document.federation.clients.values()) == 0  # nothing is sent
    scores = pd.read_parquet(out / "clients" / "client_1" / "scores.parquet")
    assert len(scores) == 20
    assert (out / "clients" / "client_2" / "banks" / "tank_screw.npz").is_file()
    page = (out / "report.html").read_text()
    assert "Each client alone" in page
    assert "nothing is uploaded" in page
    thresholds = [own["pipe_clip"].decision for own in document.local_clients.values()]
    calibration = pd.read_parquet(out / "clients" / "client_1" / "calibration.parquet")
    assert set(calibration.client_id) == {"client_1"}
    for decision in thresholds:
        assert decision is not None
        assert (decision.n_calibration, decision.n_good) == (3, 4)
    own = calibration.score[calibration.category == "pipe_clip"]
    assert thresholds[1] is not None
    assert thresholds[1].threshold == own.max()  # with so few images, their largest score
    assert document.categories["pipe_clip"].decision is None  # thresholds of different banks have no mean
    assert "client_1, alone" in page

    with pytest.raises(ArtifactError, match="has no memory bank of its own, as after a run of local_only"):
        open_run_model(out)

    plain = experiment_values(tiny_root, store, tmp_path / "b", federated={"mode": "local_only"})
    assert run(plain).name == "Completed"  # codec and noise do not matter to who sends nothing
    assert metrics(tmp_path / "b").local_clients == document.local_clients


def test_the_owner_of_a_category_alone_equals_the_baseline(tiny_root: Path, tmp_path: Path, store: Path) -> None:
    federated = {
        "mode": "local_only",
        "partitioning": "category",
        "client_assignments": {"a": ["pipe_clip"], "b": ["tank_screw"]},
    }
    assert run(experiment_values(tiny_root, store, tmp_path / "a", federated=federated)).name == "Completed"
    document = metrics(tmp_path / "a")
    assert set(document.local_clients["a"]) == {"pipe_clip"}
    assert document.federation.bank_rows == sum(round(0.1 * p) for p in (9 * 64, 9 * 96))
    assert document.categories["pipe_clip"].auc_spro == document.local_clients["a"]["pipe_clip"].auc_spro


def test_a_failed_client_is_left_out_and_the_quorum_decides(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.clients

    original = tasks.clients.rounds.select_client_coreset

    def failing(table: pd.DataFrame, at_client: Any, client_id: str, *args: Any, **kwargs: Any) -> Any:
        if client_id == "client_1":
            raise OSError(5, "Input/output error")
        return original(table, at_client, client_id, *args, **kwargs)

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", failing)
    alone: dict[str, Any] = {"mode": "local_only", "min_clients": 2}
    model = {"coreset_percentage": 0.2}
    state = run(experiment_values(tiny_root, store, tmp_path / "a", federated=alone, model=model))
    assert state.name == "Partial"
    assert list(metrics(tmp_path / "a").local_clients) == ["client_0", "client_2"]
    alone["min_clients"] = 3
    assert run(experiment_values(tiny_root, store, tmp_path / "b", federated=alone, model=model)).is_failed()
