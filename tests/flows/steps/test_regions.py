"""The merge in regions in runs: the same on one machine and across stations, its bound, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from flows.experiment import federated_experiment
from pipeline_lib.features.extraction import read_patches
from pipeline_lib.inspection.run_model import open_run_model
from pipeline_lib.storage.artifact_store import ArtifactStore
from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.flows.test_stations import assert_figures_equal, one_place
from tests.station_fixtures import coordinate, document_of, values

pytestmark = pytest.mark.usefixtures("prefect_server")

SITES = {"north": ["station-c", "station-a"], "south": ["station-b", "station-d"]}


def training_patches(root: Path) -> np.ndarray:
    """Every patch of every training image that a store holds, (patch, dim)."""
    store = ArtifactStore(root)
    tables = [pd.read_parquet(path) for path in (root / "objects" / "patch_features").rglob("*.parquet")]
    train = [table for table in tables if "/train/" in table.image_id.iloc[0]]
    return np.concatenate([read_patches(table, store) for table in train])


@pytest.mark.slow
@pytest.mark.parametrize(("num_rounds", "kind"), [(1, "picks"), (2, "picks"), (2, "cell_means")])
def test_regions_merge_alike_at_one_machine_and_at_a_coordinator_and_no_patch_lies_outside_the_bound(
    calls: list[str], plants: Path, tmp_path: Path, num_rounds: int, kind: str
) -> None:
    sections: dict[str, Any] = {
        "model": {"rows": kind},
        "federated": {"num_rounds": num_rounds},
        "aggregation": {"regions": SITES, "oversample_factor": 4.0},
    }
    state = coordinate(values(tmp_path, **sections))
    assert state.is_completed(), state.message
    root = one_place(plants, tmp_path / "whole")
    sections["federated"] |= {"partitioning": "saved", "partition_path": str(root / "partition")}
    whole = experiment_values(root / "data", root / "store", root / "run", **sections)
    federated_experiment(ExperimentConfig.model_validate(whole))

    with np.load(tmp_path / "run/banks/pipe_clip.npz") as bank, np.load(root / "run/banks/pipe_clip.npz") as expected:
        assert bank.files == expected.files
        assert ("counts" in bank.files) == (kind == "cell_means")
        for name in set(bank.files) - {"client_ids"}:
            np.testing.assert_array_equal(bank[name], expected[name])
        rows = bank["features"]
    assert_figures_equal(tmp_path / "run", root / "run")
    assert len(document_of(root / "run").federation.rounds) == (num_rounds if num_rounds > 1 else 0)
    found = document_of(root / "run").federation.regional
    assert document_of(tmp_path / "run").federation.regional == found
    regional = found["pipe_clip"]
    assert (regional.regions, regional.rows_of_regions) == (2, 2 * len(rows))
    assert regional.rows_sent > regional.rows_of_regions
    assert regional.region_radius > 0
    assert cdist(training_patches(root / "store"), rows).min(axis=1).max() <= regional.radius_bound * (1 + 1e-6)
    for out in (tmp_path / "run", root / "run"):
        page = (out / "report.html").read_text()
        assert f"merged in 2 regions: no patch of any client lies further than {regional.radius_bound:.3g}" in page
        assert open_run_model(out).directory == out


def test_a_client_without_a_region_is_refused_before_anything_is_sent(calls: list[str], tmp_path: Path) -> None:
    state = coordinate(values(tmp_path, aggregation={"regions": {"north": ["station-a"], "south": ["station-b"]}}))
    assert state.is_failed()
    assert "aggregation.regions gives no region to station-c; every client needs one" in state.message
    assert calls == []
    root = write_tiny_autovi(tmp_path / "data", train=3, good=2, defective=1)
    config = experiment_values(root, tmp_path / "store", tmp_path / "out", aggregation={"regions": {"n": ["client_0"]}})
    with pytest.raises(ConfigError, match="gives no region to client_1, client_2"):
        federated_experiment(ExperimentConfig.model_validate(config))
