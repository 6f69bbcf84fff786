"""`evaluation.save_maps`: the files of a run give its figures again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import Cells
from flows.cli import main
from flows.experiment import centralized_experiment
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.models.patchcore import PatchCore
from tests.conftest import experiment_values


@pytest.mark.usefixtures("prefect_server")
def test_measuring_the_saved_maps_gives_the_runs_figures(tiny_root: Path, tmp_path: Path, store: Path) -> None:
    values = experiment_values(
        tiny_root,
        store,
        tmp_path / "run",
        federated={"mode": "centralized"},
        inference={"smoothing_sigma": 2.0},
        evaluation={"save_maps": "npy"},
        preprocessing={"small_size": [65, 62], "large_size": [97, 66]},  # whose cells do not share the image out evenly
    )
    config = ExperimentConfig.model_validate(values)
    without = {**values, "evaluation": {**values["evaluation"], "save_maps": "none"}}
    assert config.config_hash() == ExperimentConfig.model_validate(without).config_hash()
    assert centralized_experiment(config, return_state=True).is_completed()
    files = [p.relative_to(tmp_path / "run/maps").as_posix() for p in (tmp_path / "run/maps").rglob("*.npy")]
    assert len(files) == 2 * 10
    assert "tank_screw/test/missing/0002.npy" in files
    maps, out = tmp_path / "run" / "maps", tmp_path / "again"
    model = PatchCore.load(tmp_path / "run", "pipe_clip")
    for scored in model.score(AutoVIDataset(tiny_root, ["pipe_clip"], split="test")):
        path = Path(str(scored.info.path))
        saved = np.load(maps / "pipe_clip" / "test" / path.parent.name / f"{path.stem}.npy")
        assert scored.cells != Cells.even((8, 9))
        assert saved == pytest.approx(scored.anomaly_map(2.0), rel=1e-5)
    settings = ["--set", "seed=1", "--set", "evaluation.bootstrap=50"]
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["evaluate", "--dataset-root", str(tiny_root), "--maps", str(maps), "--out", str(out), *settings])
    of_run, of_files = (json.loads((directory / "metrics.json").read_text()) for directory in (tmp_path / "run", out))
    for values in of_run["categories"].values():
        assert values.pop("decision") is not None  # calibrated on training images, of which files of maps know nothing
    for values in of_files["categories"].values():
        assert values.pop("decision") is None
    assert of_files["categories"] == of_run["categories"]
    assert of_files["mean"] == of_run["mean"]
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["evaluation"]["save_maps"] == "npy"
