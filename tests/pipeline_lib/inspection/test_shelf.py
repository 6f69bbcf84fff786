"""The shelf of models: promote, roll back, damaged models stay out of use, comparison."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ArtifactError, FedpatchError
from data_contracts.results import CategoryMetrics, Decision, MetricsDocument
from data_contracts.settings import ScoringSettings
from flows.cli import main
from pipeline_lib.configuration.files import write_config
from pipeline_lib.inspection.shelf import current_id, list_models, promote, rollback
from pipeline_lib.models.saved_model import Inference, write_model
from tests.report_fixtures import BACKBONE

SCORING = ScoringSettings(seed=0, num_neighbors=1, image_score="max", search="exact", use_faiss=True)


def a_run(path: Path, seed: int) -> Path:
    """A run directory with a small model, configuration and metrics."""
    rows = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
    write_model(path, BACKBONE, Inference(SCORING, (64, 64)), {"pipe_clip": {"features": rows}})
    write_config(ExperimentConfig(name="shelf", seed=seed), path / "config.yaml")
    metrics = MetricsDocument(
        experiment="shelf", config_hash="", seed=seed,
        categories={"pipe_clip": CategoryMetrics(image_auroc=0.9 + seed / 100, decision=Decision(threshold=2.5))},
    )  # fmt: skip
    (path / "metrics.json").write_text(metrics.model_dump_json())
    return path


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_promote_points_to_a_copy_and_rollback_goes_back(tmp_path: Path) -> None:
    shelf = tmp_path / "models"
    assert list_models(shelf) == []
    ids = [promote(a_run(tmp_path / f"run{n}", n), shelf) for n in range(3)]
    assert len(set(ids)) == 3
    assert current_id(shelf) == ids[2]
    assert rollback(shelf) == (ids[2], ids[1])
    assert rollback(shelf) == (ids[1], ids[0])
    with pytest.raises(FedpatchError, match="no earlier model"):
        rollback(shelf)
    assert promote(shelf / ids[2], shelf) == ids[2]  # from the shelf itself
    assert promote(tmp_path / "run2", shelf) == ids[2]  # the same run again is the same model
    assert rollback(shelf) == (ids[2], ids[0])
    os.remove(tmp_path / "run0" / "model.json")  # the shelf has copies
    assert [model.model_id for model in list_models(shelf) if model.is_current] == [ids[0]]
    assert (shelf / "current" / "banks").is_dir()


def test_a_damaged_model_is_never_put_in_use(tmp_path: Path) -> None:
    shelf = tmp_path / "models"
    good = promote(a_run(tmp_path / "good", 0), shelf)
    bad = a_run(tmp_path / "bad", 1)
    (bad / "banks" / "pipe_clip.npz").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="is damaged"):
        promote(bad, shelf)
    with pytest.raises(ArtifactError, match="holds no trained model"):
        promote(tmp_path / "nowhere", shelf)
    assert current_id(shelf) == good
    assert [model.model_id for model in list_models(shelf)] == [good]


def test_the_commands_list_compare_and_say_what_is_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelf = tmp_path / "models"
    assert call("model", "list", "--models", shelf) == 0
    assert "no models in" in capsys.readouterr().out
    runs = [a_run(tmp_path / f"run{n}", n) for n in range(2)]
    for run in runs:
        assert call("model", "promote", run, "--models", shelf) == 0
    assert f"fedpatch score {shelf}/current" in capsys.readouterr().err
    assert call("model", "list", "--models", shelf, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [model["current"] for model in listed].count(True) == 1
    assert call("model", "compare", runs[0], "current", "--models", shelf) == 0
    shown = capsys.readouterr().out
    assert "90.0" in shown
    assert "91.0" in shown
    assert "seed: 0 | 1" in shown
    of_relay = yaml.safe_load((runs[0] / "config.yaml").read_text())
    of_relay["federated"]["turns"], of_relay["aggregation"]["budget"] = "relay", "images"  # as an earlier version wrote
    (runs[0] / "config.yaml").write_text(yaml.safe_dump(of_relay))
    assert call("model", "compare", runs[0], "current", "--models", shelf, "--json") == 0
    differing = json.loads(capsys.readouterr().out)["settings"]
    assert differing == {"seed": [0, 1], "federated.turns": ["relay", "parallel"]}
    assert call("model", "rollback", "--models", shelf, "--json") == 0
    assert json.loads(capsys.readouterr().out)["before"] != current_id(shelf)
    assert call("model", "compare", runs[0], "unknown", "--models", shelf) == 1
    assert "there is no model unknown" in capsys.readouterr().err
