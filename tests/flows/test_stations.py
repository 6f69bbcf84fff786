"""Stations and coordinator in one process: the children are run in place of being called through a server."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from data_contracts.results import MetricValues
from flows.across_machines.places import own_config
from flows.cli.experiment.runs import show_runs
from flows.experiment import federated_experiment
from flows.maintenance import store_prune
from flows.stations import station_client, station_coordinator
from pipeline_lib.inspection.run_model import open_run_model
from pipeline_lib.partition.saved import save_partition
from tests.conftest import experiment_values
from tests.station_fixtures import STATIONS, coordinate, document_of, run_station, values

pytestmark = pytest.mark.usefixtures("prefect_server")


def figures(found: MetricValues) -> dict[str, Any]:
    return {
        "image": found.image_auroc,
        "ap": found.image_ap,
        "pixel": found.pixel_auroc,
        **{f"spro {limit}": area for limit, area in found.auc_spro.items()},
        **{f"tpr {rate}": share for rate, share in found.tpr_at_tnr.items()},
    }


# --- against one machine that has all images -------------------------------------------------------------------------


def one_place(plants: Path, root: Path) -> Path:
    """All stations' images in one directory and a saved partition that gives each station its own; returns `root`."""
    owner = {}
    for station in STATIONS:
        for file in (plants / station).rglob("*.png"):
            parts = list(file.relative_to(plants / station).parts)
            parts[3] = f"{station}-{parts[3]}"
            target = root.joinpath("data", *parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
            if parts[1] == "train":
                owner["/".join([*parts[:3], target.stem])] = station
    shutil.copy(plants / STATIONS[0] / "pipe_clip" / "defects_config.json", root / "data" / "pipe_clip")
    frame = pd.DataFrame({"image_id": list(owner), "client_id": list(owner.values())})
    save_partition(frame, {"clients": dict.fromkeys(STATIONS)}, root / "partition")
    return root


def assert_figures_equal(out: Path, whole: Path) -> None:
    """The stations' figures and thresholds are those of one machine that has all images."""
    found, expected = document_of(out), document_of(whole)
    own, theirs = found.categories["pipe_clip"], expected.categories["pipe_clip"]
    error = found.federation.pooling_error
    assert error is not None
    assert error < 1e-3
    assert figures(own) == pytest.approx(figures(theirs), abs=error + 1e-9)
    assert own.decision is not None
    assert theirs.decision is not None
    assert own.decision == theirs.decision
    for mine, reference in zip(found.federation.rounds, expected.federation.rounds, strict=True):
        assert figures(mine.mean) == pytest.approx(figures(reference.mean), abs=error + 1e-9)
        assert (mine.upload_rows, mine.bank_rows) == (reference.upload_rows, reference.bank_rows)
    left, right = own.ci95["image_auroc"], theirs.ci95["image_auroc"]
    assert left == pytest.approx(right)


@pytest.mark.slow
def test_banks_figures_thresholds_and_rounds_equal_those_of_one_machine_and_nothing_else_is_shared(
    calls: list[str], plants: Path, tmp_path: Path
) -> None:
    """One round: tests/flows/steps/test_regions.py."""
    sections: dict[str, Any] = {"federated": {"num_rounds": 2}}
    state = coordinate(values(tmp_path, **sections))
    assert state.is_completed(), state.message
    coresets = [f"{s}:coreset:{number}" for number in (1, 2) for s in STATIONS]
    assert calls == [*coresets, *(f"{s}:figures:2" for s in STATIONS)]

    root = one_place(plants, tmp_path / "whole")
    sections["federated"] |= {"partitioning": "saved", "partition_path": str(root / "partition")}
    whole = experiment_values(root / "data", root / "store", root / "run", **sections)
    federated_experiment(ExperimentConfig.model_validate(whole))

    with np.load(tmp_path / "run/banks/pipe_clip.npz") as bank, np.load(root / "run/banks/pipe_clip.npz") as expected:
        np.testing.assert_array_equal(bank["features"], expected["features"])
    assert_figures_equal(tmp_path / "run", root / "run")
    found = document_of(tmp_path / "run").federation
    assert len(found.rounds) == 2
    assert found.regional == {}
    check_run_directory(tmp_path / "run")
    for station, kinds in found.bytes_left_by_kind.items():
        files = [path for path in (tmp_path / "shared").rglob("*") if path.is_file() and path.parent.name == station]
        assert sum(kinds.values()) == sum(path.stat().st_size for path in files)
        assert kinds["coresets"] == found.clients[station].upload_bytes
        assert set(kinds) == {"coresets", "refused_coresets", "manifests", "figures", "calibration_scores"}
    check_what_is_shared(tmp_path)


def check_run_directory(out: Path) -> None:
    """It is a model with a threshold, and has a report without pictures."""
    assert not (out / "provenance").exists()  # which image a row is of stays with its station
    page = (out / "report.html").read_text()
    for text in (
        "The images lie at the stations",
        "each with images of its own",
        "pixel AUROC and AUC-sPRO to",
        "station-b",
        "This file holds no images",
    ):
        assert text in page
    show_runs([out], markdown=True, as_json=False)
    model = open_run_model(out)
    assert model.threshold("pipe_clip") == document_of(out).categories["pipe_clip"].decision.threshold  # type: ignore[union-attr]


def check_what_is_shared(tmp_path: Path) -> None:
    """Uploads, banks and figures alone, and pruning takes them away."""
    shared = [
        path.relative_to(tmp_path / "shared").parts for path in (tmp_path / "shared").rglob("*") if path.is_file()
    ]
    kinds = {parts[2] for parts in shared}
    assert kinds == {"uploads", "banks", "figures", "closed.json"}
    assert all(parts[-1].endswith(".npz") or parts[-1] in ("manifest.json", "closed.json") for parts in shared)
    words = "".join(p.read_text() for p in (tmp_path / "shared").rglob("manifest.json"))
    said = store_prune(store=tmp_path / "coordinator", shared_days=0).splitlines()
    assert "removed 1 runs" in said[1]
    assert not list((tmp_path / "shared").iterdir())
    assert "client_provenance" not in words
    assert str(tmp_path) not in words


@pytest.mark.slow
def test_groups_are_a_stations_own(calls: list[str], tmp_path: Path) -> None:
    config = {**values(tmp_path), "dataset": {"group": {"pattern": r"000([0-9])\.png$"}}}
    state = coordinate(config)
    assert state.is_completed(), state.message
    scores = pd.read_parquet(tmp_path / "run" / "calibration.parquet")
    of_station = scores.groupby("client_id")["group"].agg(set)
    assert len(of_station) == len(STATIONS)
    assert len(set().union(*of_station)) == sum(map(len, of_station))  # the same name is another group elsewhere
    decision = document_of(tmp_path / "run").categories["pipe_clip"].decision
    assert decision is not None
    assert decision.n_groups == scores["group"].nunique()
    with pytest.raises(ConfigError, match="a file lies on one machine"):
        own_config(ExperimentConfig.model_validate({"dataset": {"group": {"file": "groups.csv"}}}))


@pytest.mark.slow
def test_a_station_may_send_a_share_of_its_own(calls: list[str], tmp_path: Path) -> None:
    """Through the call's parameters: the configuration names no stations. The bank keeps its size."""
    config = ExperimentConfig.model_validate(values(tmp_path))
    state = station_coordinator(config, STATIONS, coreset_percentage_by_station={"station-b": 1.0}, return_state=True)
    assert state.is_completed()
    found = document_of(tmp_path / "run").federation
    assert found is not None
    sent = found.clients
    assert sent["station-b"].coreset_rows == sent["station-b"].patches
    assert all(sent[name].coreset_rows < sent[name].patches / 2 for name in ("station-a", "station-c"))
    assert found.bank_rows == round(config.model.coreset_percentage * sum(one.patches for one in sent.values()))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_doubled_stations_and_rounds_without_cover_are_refused(calls: list[str], tmp_path: Path) -> None:
    state = coordinate(values(tmp_path, federated={"num_rounds": 2}, model={"subsampling": "random"}))
    assert "num_rounds is 2, but model.subsampling random" in state.message
    config = ExperimentConfig.model_validate(values(tmp_path))
    assert "different names" in station_coordinator(config, ["a", "a"], return_state=True).message
    state = station_coordinator(config, STATIONS, coreset_percentage_by_station={"d": 0.5}, return_state=True)
    assert "names d, but the stations are station-a, station-b, station-c" in state.message


def test_a_station_without_a_name_is_a_clear_error(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDPATCH_STATION", raising=False)
    config = ExperimentConfig.model_validate(values(tmp_path))
    assert "FEDPATCH_STATION is not set" in station_client(config, "run", return_state=True).message


def test_a_worker_that_does_not_know_the_shared_place_is_told_before_an_image_is_read(
    calls: list[str], work: Counter[str], plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDPATCH_EXCHANGE")
    parameters = {"config": values(tmp_path), "run_id": "run"}
    state = run_station(monkeypatch, plants / STATIONS[0], tmp_path / "own", parameters)
    assert "FEDPATCH_EXCHANGE is not set in this worker" in state.message
    assert f", of {STATIONS[0]}; where the worker is started" in state.message
    assert "start the worker again" in state.message
    assert not work
    assert not (tmp_path / "own").exists()
