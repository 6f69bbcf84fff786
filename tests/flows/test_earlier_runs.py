"""Runs of an earlier version are still shown, compared and used as models.

tests/earlier_runs: two rounds on `write_tiny_autovi`, as they were left before the modules were moved; `relay` with
settings that are gone since (federated.turns: relay, aggregation.budget: coverage).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from data_contracts.config import ExperimentConfig
from data_contracts.results import METRICS_FILES
from flows.cli import main
from tests.conftest import ROOT
from tests.dataset_fixtures import write_tiny_autovi

RUNS = [ROOT / "tests" / "earlier_runs" / name for name in ("rounds", "relay")]


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What `fedpatch ARGUMENTS --json` prints."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--json"])
    found = capsys.readouterr()
    assert not stop.value.code, found.err
    return json.loads(found.out)


def test_they_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = called(capsys, "show", *map(str, RUNS))
    for shown, run in zip(found, RUNS, strict=True):
        for subset, name in METRICS_FILES.items():
            written = json.loads((run / name).read_text())
            assert without_new_keys(shown[subset], written) == written


def without_new_keys(shown: Any, written: Any) -> Any:
    """What is shown, without the keys that the earlier version did not have."""
    if isinstance(shown, dict) and isinstance(written, dict):
        return {key: without_new_keys(shown[key], written[key]) for key in written}
    if isinstance(shown, list) and isinstance(written, list) and len(shown) == len(written):
        return [without_new_keys(one, other) for one, other in zip(shown, written, strict=True)]
    return shown


def test_they_are_compared_with_the_settings_that_are_gone(capsys: pytest.CaptureFixture[str]) -> None:
    found = called(capsys, "model", "compare", *map(str, RUNS))
    assert [row["model"] for row in found["metrics"]] == ["rounds", "relay"]
    assert found["settings"]["federated.turns"] == ["parallel", "relay"]
    assert found["settings"]["aggregation.budget"] == ["images", "coverage"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_their_models_score_images_as_they_did(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tiny_autovi(tmp_path, train=6, good=3, defective=3)
    found = called(capsys, "score", str(run), str(root / "pipe_clip" / "test"), "--category", "pipe_clip")
    scores = {"/".join(Path(one["path"]).with_suffix("").parts[-3:]): one["score"] for one in found}
    expected = pd.read_parquet(run / "scores.parquet")
    assert len(scores) == len(expected)
    for image_id, score in zip(expected.image_id, expected.score, strict=True):
        assert scores["/".join(image_id.split("/")[-3:])] == pytest.approx(score, rel=1e-3)


def test_a_configuration_of_an_earlier_run_has_the_hash_that_it_had() -> None:
    values = yaml.safe_load((RUNS[0] / "config.yaml").read_text())
    assert (values["federated"]["turns"], values["aggregation"]["budget"]) == ("parallel", "images")
    config = ExperimentConfig.model_validate(values)
    assert json.loads((RUNS[0] / "metrics.json").read_text())["config_hash"] in config.config_hashes()
