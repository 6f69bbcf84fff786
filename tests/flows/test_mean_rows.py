"""A centralized run whose rows are means: the bank of the library form, thresholds out of fold, picks to explain it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_contracts.config import ExperimentConfig
from flows.experiment import centralized_experiment
from pipeline_lib.coreset.cell_means import cell_means
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.models.patchcore import PatchCore
from tests.conftest import experiment_values

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_the_bank_is_that_of_the_library_and_its_rows_are_explained_by_what_was_picked(
    tiny_root: Path, tmp_path: Path, store: Path
) -> None:
    out = tmp_path / "run"
    values = experiment_values(
        tiny_root, store, out, federated={"mode": "centralized"}, model={"rows": "cell_means"}, decision={"blocks": 3}
    )
    state = centralized_experiment(ExperimentConfig.model_validate(values), return_state=True)
    assert state.is_completed()
    extractor = FeatureExtractor("efficientnet_lite0")
    images = AutoVIDataset(tiny_root, ["pipe_clip"])
    every = PatchCore(extractor, coreset_percentage=1.0, image_size=(64, 64)).fit(images).memory_bank.features
    models = {
        kind: PatchCore(extractor, rows=kind, image_size=(64, 64), seed=1).fit(images)  # type: ignore[arg-type]
        for kind in ("picks", "cell_means")
    }
    picks = models["picks"].memory_bank.features
    with np.load(out / "banks" / "pipe_clip.npz", allow_pickle=False) as bank:
        assert bank["features"].tobytes() == models["cell_means"].memory_bank.features.tobytes()
        assert bank["counts"].sum() == len(every)
        assert len(bank["features"]) == len(picks)
    assert models["cell_means"].memory_bank.features.tobytes() == cell_means(every, picks).means.tobytes()
    provenance = pd.read_parquet(out / "provenance" / "pipe_clip.parquet")
    assert provenance.bank_row.tolist() == list(range(len(picks)))
    order = {image: number for number, image in enumerate(images.index["image_id"])}
    per_image = len(every) // len(order)
    places = [order[i] * per_image + p for i, p in zip(provenance.image_id, provenance.patch_index, strict=True)]
    assert len(set(places)) == len(places)
    scores = pd.read_parquet(out / "calibration.parquet")
    assert scores.groupby("category").size().to_dict() == {"pipe_clip": 9, "tank_screw": 9}
    assert (scores.score > 0).all()
