"""Stations and coordinator in one process: the children are run in place of being called through a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import flows.stations
from data_contracts.config import ExperimentConfig
from data_contracts.results import MetricsDocument
from flows.stations import station_client, station_coordinator
from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi

pytestmark = pytest.mark.usefixtures("prefect_server")

STATIONS = ["station-a", "station-b", "station-c"]


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory for each station."""
    root = tmp_path_factory.mktemp("plants")
    for seed, station in enumerate(STATIONS):
        write_tiny_autovi(root / station, train=3, good=3, defective=2, seed=seed)
    return root


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, plants: Path, tmp_path: Path) -> list[str]:
    """Run each station's flow in its own environment; returns the calls made, station:phase."""
    made: list[str] = []
    monkeypatch.setenv("FEDPATCH_EXCHANGE", str(tmp_path / "shared"))
    monkeypatch.setenv("FEDPATCH_STORE", str(tmp_path / "coordinator"))

    def call(stations: list[str], parameters: dict[str, Any], **_: Any) -> dict[str, str | None]:
        answers: dict[str, str | None] = {}
        for station in stations:
            made.append(f"{station}:{parameters['phase']}")
            with monkeypatch.context() as environment:
                environment.setenv("FEDPATCH_STATION", station)
                environment.setenv("FEDPATCH_DATASET", str(plants / station))
                environment.setenv("FEDPATCH_STORE", str(tmp_path / station))
                config = ExperimentConfig.model_validate(parameters["config"])
                state = station_client(config, parameters["run_id"], parameters["phase"], return_state=True)
            answers[station] = None if state.is_completed() else state.message
        return answers

    monkeypatch.setattr(flows.stations, "call_stations", call)
    return made


def values(tmp_path: Path, **sections: Any) -> dict[str, Any]:
    """What the coordinator is given: no data set."""
    made = experiment_values(Path("nowhere"), Path("nowhere"), tmp_path / "run", **sections)
    return {**made, "dataset": {}, "runtime": {"out": str(tmp_path / "run")}}


def coordinate(config: dict[str, Any]) -> Any:
    return station_coordinator(ExperimentConfig.model_validate(config), STATIONS, return_state=True)


def figures(out: Path) -> dict[str, Any]:
    document = MetricsDocument.model_validate_json((out / "metrics.json").read_text())
    (category,) = document.categories.values()
    return {
        "image": category.image_auroc,
        "pixel": category.pixel_auroc,
        **{f"spro {limit}": area for limit, area in category.auc_spro.items()},
    }


def test_pooled_figures_equal_those_of_one_machine(calls: list[str], plants: Path, tmp_path: Path) -> None:
    state = coordinate(values(tmp_path, aggregation={"strategy": "simple_concatenate"}))
    assert state.is_completed(), state.message
    assert calls == [f"{s}:{phase}" for phase in ("coreset", "figures") for s in STATIONS]
    whole = tmp_path / "whole"
    bank = tmp_path / "run" / "banks" / "pipe_clip.npz"
    assert figures(tmp_path / "run") == pytest.approx(figures_of_all(plants, whole, bank), abs=1e-3)


def figures_of_all(plants: Path, root: Path, bank: Path) -> dict[str, Any]:
    """All test images in one directory, scored with the bank and measured by the one-machine evaluation."""
    import numpy as np
    import pandas as pd

    from data_contracts.stages import EvaluationSettings, ScoringSettings
    from pipeline_lib import backbone, client_tables, evaluation, features, memory_bank, scoring
    from pipeline_lib.artifact_store import ArtifactStore
    from pipeline_lib.dataset_index import index_dataset

    for station in STATIONS:
        for file in (plants / station).rglob("*.png"):
            parts = list(file.relative_to(plants / station).parts)
            parts[3] = f"{station}-{parts[3]}"
            target = root.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    shutil.copy(plants / STATIONS[0] / "pipe_clip" / "defects_config.json", root / "pipe_clip")
    config = ExperimentConfig.model_validate(experiment_values(root, root / "store", root / "run"))
    rows = client_tables.category_test_table(
        index_dataset(root, layout="autovi", categories=("pipe_clip",)), "pipe_clip"
    )
    store = ArtifactStore(root / "store")
    settings = backbone.resolve_backbone(config.model, config.preprocessing, seed=config.seed)
    table = features.extract_features(
        features.image_rows(rows, root), store, backbone.shared_extractor(settings, "cpu"),
        {"pipe_clip": config.preprocessing.size("pipe_clip")}, batch_size=8, num_workers=1,
    )  # fmt: skip
    with np.load(bank) as arrays:
        model = memory_bank.MemoryBank(arrays["features"])
    scored = scoring.score_images(table, store, model, ScoringSettings.of(config))
    scores = pd.DataFrame({"image_id": scored.image_ids, "score": scored.scores})
    measure = EvaluationSettings.of(config)
    loaders, by_image = evaluation.stored_maps(rows, scored.maps, scores, 0)
    found = evaluation.evaluate_category(rows, root, loaders, by_image, measure).metrics["all"]
    return {
        "image": found.image_auroc,
        "pixel": found.pixel_auroc,
        **{f"spro {limit}": area for limit, area in found.auc_spro.items()},
    }


def test_only_uploads_banks_and_figures_are_shared(calls: list[str], tmp_path: Path) -> None:
    assert coordinate(values(tmp_path)).is_completed()
    shared = [
        path.relative_to(tmp_path / "shared").parts for path in (tmp_path / "shared").rglob("*") if path.is_file()
    ]
    kinds = {parts[2] for parts in shared}
    assert kinds == {"uploads", "banks", "figures", "closed.json"}
    assert all(parts[-1].endswith(".npz") or parts[-1] in ("manifest.json", "closed.json") for parts in shared)
    words = "".join(p.read_text() for p in (tmp_path / "shared").rglob("manifest.json"))
    assert "client_provenance" not in words
    assert str(tmp_path) not in words


def test_a_station_that_fails_is_named_and_the_quorum_decides(
    calls: list[str], plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = flows.stations.call_stations

    def with_one_down(stations: list[str], parameters: dict[str, Any], **rest: Any) -> dict[str, str | None]:
        up = [station for station in stations if station != "station-b"]
        answers = call(up, parameters, **rest)
        return {station: answers.get(station, "its run did not start") for station in stations}

    monkeypatch.setattr(flows.stations, "call_stations", with_one_down)
    state = coordinate(values(tmp_path, federated={"min_clients": 3}))
    assert state.is_failed()
    assert "2 of 3 clients delivered" in state.message
    assert "station-b: its run did not start" in state.message
    state = coordinate(values(tmp_path, federated={"min_clients": 2}))
    assert state.name == "CompletedPartial"
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert document["federation"]["failed_clients"] == {"station-b": "its run did not start"}


def test_several_rounds_and_doubled_stations_are_refused(calls: list[str], tmp_path: Path) -> None:
    state = coordinate(values(tmp_path, federated={"num_rounds": 2}))
    assert "one round" in state.message
    config = ExperimentConfig.model_validate(values(tmp_path))
    assert "different names" in station_coordinator(config, ["a", "a"], return_state=True).message


def test_a_station_without_a_name_is_a_clear_error(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDPATCH_STATION", raising=False)
    config = ExperimentConfig.model_validate(values(tmp_path))
    assert "FEDPATCH_STATION is not set" in station_client(config, "run", return_state=True).message
