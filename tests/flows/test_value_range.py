"""12-bit images from the run to the decision: one range, found in training, in the record, in the model, in scoring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_contracts.config import ExperimentConfig
from data_contracts.settings import Reading
from flows.experiment import centralized_experiment
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.inspection.decisions import decide_image
from pipeline_lib.inspection.run_model import open_run_model
from pipeline_lib.models.patchcore import PatchCore
from pipeline_lib.models.saved_model import read_model
from tests.conftest import experiment_values
from tests.dataset_fixtures import write_deep_png, write_tiny_autovi

TWELVE = Reading(orientation="applied", value_ranges={"pipe_clip": 4095})


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """The same pictures with 8 bits, and with 12 bits in 16."""
    eight, twelve = (write_tiny_autovi(tmp_path / name, good=2, defective=2) for name in ("eight", "twelve"))
    for path in twelve.glob("pipe_clip/t*/*/*.png"):
        deepen(path)
    return eight, twelve


def deepen(path: Path) -> None:
    pixels = np.asarray(Image.open(path)).astype(float)
    write_deep_png(path, np.round(pixels * 4095 / 255).astype(np.uint16))


def test_a_run_on_12_bit_images_keeps_their_range_in_its_model(
    prefect_server: None, roots: tuple[Path, Path], tmp_path: Path
) -> None:
    _, root = roots
    write_deep_png(root / "pipe_clip/test/good/0001.png", np.full((48, 64, 3), 5000, np.uint16))
    values = experiment_values(root, tmp_path / "store", tmp_path / "run", evaluation={"bootstrap": 0})
    assert centralized_experiment(ExperimentConfig.model_validate(values), return_state=True).is_completed()  # type: ignore[union-attr]
    assert json.loads((tmp_path / "run/model.json").read_bytes())["reading"] == TWELVE.model_dump()
    model = open_run_model(tmp_path / "run")
    scores = pd.read_parquet(tmp_path / "run/scores.parquet")
    assert len(scores) == 5, "the brighter test image is set aside"
    for row in scores.itertuples():
        assert decide_image(model, root / row.path).score == pytest.approx(row.score, rel=1e-6)
    refused = decide_image(model, root / "pipe_clip/test/good/0001.png")
    assert refused.score is None
    assert "the value range of its category is 0 to 4095" in refused.reason
    findings = json.loads((tmp_path / "run/validation.json").read_bytes())["findings"]
    assert [one["path"] for one in findings if one["code"] == "too_bright"] == ["pipe_clip/test/good/0001.png"]


def test_the_library_makes_the_same_model_of_8_and_12_bits(roots: tuple[Path, Path], tmp_path: Path) -> None:
    models = []
    for root in roots:
        model = PatchCore("efficientnet_lite0", image_size=(64, 64)).fit(AutoVIDataset(root))
        model.save(tmp_path / root.name)
        models.append(model)
    assert np.array_equal(models[0].memory_bank.features, models[1].memory_bank.features)
    assert read_model(tmp_path / "twelve").reading == PatchCore.load(tmp_path / "twelve").reading == TWELVE
    decided = [
        decide_image(open_run_model(tmp_path / root.name), root / "pipe_clip/test/scratch/0001.png").score
        for root in roots
    ]
    assert decided[0] == decided[1] is not None
