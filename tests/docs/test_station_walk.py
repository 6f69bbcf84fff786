"""docs/stations.md, two stations: what its lines of shell make, and a run that is copied to another machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_contracts.config import ExperimentConfig
from flows.cli import main
from pipeline_lib.configuration.files import load_config
from tests.conftest import ROOT


def call(*words: object) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([str(word) for word in words])


def test_the_settings_of_a_first_configuration_reach_the_stations(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("init", tiny_root)
    found = re.search(r"config=\$\(python -c '(.+)' < \S+\)", (ROOT / "docs/stations.md").read_text())
    assert found
    given = Path("own.yaml").read_text()
    made = subprocess.run(
        [sys.executable, "-c", found[1]], input=given, capture_output=True, text=True, check=True
    ).stdout
    sent, own = ExperimentConfig.model_validate(json.loads(made)), load_config(Path("own.yaml"))
    assert (sent.preprocessing, sent.model) == (own.preprocessing, own.model)
    assert sent.preprocessing.size_by_category
    assert sent.model.coreset_percentage == 0.01
    assert sent.dataset.root is None


def test_a_copied_run_scores_where_its_path_of_weights_does_not_exist(
    finished: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / "copied"
    shutil.copytree(finished / "run" / "banks", copied / "banks")
    for name in ("model.json", "config.yaml", "calibration.parquet"):
        shutil.copy(finished / "run" / name, copied)
    model = json.loads((copied / "model.json").read_text())
    model["backbone"]["weights_path"] = "/of/the/coordinator/weights.pth"
    (copied / "model.json").write_text(json.dumps(model))
    call("model", "promote", copied)
    capsys.readouterr()
    images = tiny_root / "pipe_clip/test/good"
    scored = {}
    for run in (Path("models/current"), finished / "run"):
        call("score", run, images, "--category", "pipe_clip", "--json")
        scored[run] = [(one["score"], one["threshold"]) for one in json.loads(capsys.readouterr().out)]
    here, there = scored.values()
    assert here == there
    assert len(here) == len(os.listdir(images))
