"""Stations and coordinator in one process: the children are run in place of being called through a server."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flows.station_rounds
import flows.stations
from data_contracts.config import ExperimentConfig
from data_contracts.results import MetricsDocument, MetricValues
from flows.cli.runs import show_runs
from flows.experiment import federated_experiment
from flows.stations import station_client, station_coordinator
from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.run_model import open_run_model
from pipeline_lib.saved_partition import save_partition
from pipeline_lib.store_retention import DAY_SECONDS, prune_store
from tests.conftest import experiment_values
from tests.dataset_fixtures import tiny_pixels, write_image, write_tiny_autovi

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
    """Run each station's flow in its own environment; returns the calls made, station:phase:round."""
    made: list[str] = []
    monkeypatch.setenv("FEDPATCH_EXCHANGE", str(tmp_path / "shared"))
    monkeypatch.setenv("FEDPATCH_STORE", str(tmp_path / "coordinator"))

    def call(stations: list[str], parameters: dict[str, Any], **_: Any) -> dict[str, str | None]:
        answers: dict[str, str | None] = {}
        for station in stations:
            made.append(f"{station}:{parameters['phase']}:{parameters['round_number']}")
            state = run_station(monkeypatch, plants / station, tmp_path / station, parameters)
            answers[station] = None if state.is_completed() else state.message
        return answers

    monkeypatch.setattr(flows.station_rounds, "call_stations", call)
    return made


def run_station(monkeypatch: pytest.MonkeyPatch, data: Path, store: Path, parameters: dict[str, Any]) -> Any:
    """One run of a station in its own environment."""
    with monkeypatch.context() as environment:
        environment.setenv("FEDPATCH_STATION", data.name)
        environment.setenv("FEDPATCH_DATASET", str(data))
        environment.setenv("FEDPATCH_STORE", str(store))
        config = ExperimentConfig.model_validate(parameters["config"])
        return station_client(**{**parameters, "config": config}, return_state=True)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often something was computed: coresets by station, images extracted, maps counted."""
    import tasks.clients
    import tasks.rounds
    import tasks.stations
    from pipeline_lib import features

    done: Counter[str] = Counter()

    def counted(module: Any, name: str, key: Any) -> None:
        original = getattr(module, name)

        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            label, n = key(*arguments)
            done[label] += n
            return original(*arguments, **keywords)

        monkeypatch.setattr(module, name, wrapper)

    counted(
        tasks.clients.client_coreset, "select_client_coreset", lambda table, store, name, *_: (f"coreset {name}", 1)
    )
    counted(tasks.rounds.client_rounds, "select_round_coreset", lambda table, store, name, s: (f"{name} {s.round}", 1))
    counted(tasks.stations.pooled_figures, "station_figures", lambda images: ("counted", len(images)))
    counted(features, "extract_batch", lambda *_: ("extracted", 1))
    return done


def values(tmp_path: Path, **sections: Any) -> dict[str, Any]:
    """What the coordinator is given: no data set."""
    made = experiment_values(Path("nowhere"), Path("nowhere"), tmp_path / "run", **sections)
    return {**made, "dataset": {}, "runtime": {"out": str(tmp_path / "run")}}


def coordinate(config: dict[str, Any], stations: list[str] = STATIONS) -> Any:
    return station_coordinator(ExperimentConfig.model_validate(config), stations, return_state=True)


def document_of(out: Path) -> MetricsDocument:
    return MetricsDocument.model_validate_json((out / "metrics.json").read_text())


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


@pytest.mark.parametrize("num_rounds", [1, 2])
def test_banks_figures_thresholds_and_rounds_equal_those_of_one_machine(
    calls: list[str], plants: Path, tmp_path: Path, num_rounds: int
) -> None:
    sections: dict[str, Any] = {"federated": {"num_rounds": num_rounds}}
    state = coordinate(values(tmp_path, **sections))
    assert state.is_completed(), state.message
    coresets = [f"{s}:coreset:{number}" for number in range(1, num_rounds + 1) for s in STATIONS]
    assert calls == [*coresets, *(f"{s}:figures:{num_rounds}" for s in STATIONS)]

    root = one_place(plants, tmp_path / "whole")
    sections["federated"] |= {"partitioning": "saved", "partition_path": str(root / "partition")}
    whole = experiment_values(root / "data", root / "store", root / "run", **sections)
    federated_experiment(ExperimentConfig.model_validate(whole))

    with np.load(tmp_path / "run/banks/pipe_clip.npz") as bank, np.load(root / "run/banks/pipe_clip.npz") as expected:
        np.testing.assert_array_equal(bank["features"], expected["features"])
    found, expected_document = document_of(tmp_path / "run"), document_of(root / "run")
    own, theirs = found.categories["pipe_clip"], expected_document.categories["pipe_clip"]
    assert figures(own) == pytest.approx(figures(theirs), abs=1e-3)
    assert own.decision is not None
    assert theirs.decision is not None
    assert own.decision == theirs.decision
    assert len(found.federation.rounds) == (num_rounds if num_rounds > 1 else 0)
    for mine, reference in zip(found.federation.rounds, expected_document.federation.rounds, strict=True):
        assert figures(mine.mean) == pytest.approx(figures(reference.mean), abs=1e-3)
        assert (mine.upload_rows, mine.bank_rows) == (reference.upload_rows, reference.bank_rows)
    left, right = own.ci95["image_auroc"], theirs.ci95["image_auroc"]
    assert left == pytest.approx(right, abs=0.1)  # other resamples
    check_run_directory(tmp_path / "run", plants)


def check_run_directory(out: Path, plants: Path) -> None:
    """It is a model with a threshold, and has a report without pictures."""
    page = (out / "report.html").read_text()
    for text in (
        "The images lie at the stations",
        "each with images of its own",
        "station-b",
        "This file holds no images",
    ):
        assert text in page
    show_runs([out], markdown=True, as_json=False)
    model = open_run_model(out)
    assert model.threshold("pipe_clip") == document_of(out).categories["pipe_clip"].decision.threshold  # type: ignore[union-attr]


# --- what is shared --------------------------------------------------------------------------------------------------


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


# --- trouble ---------------------------------------------------------------------------------------------------------


def break_calls(monkeypatch: pytest.MonkeyPatch, broken: set[str]) -> None:
    """Calls named in `broken` (station:phase:round) do not come to a run, as when the worker is down."""
    call = flows.station_rounds.call_stations

    def with_some_down(stations: list[str], parameters: dict[str, Any], **rest: Any) -> dict[str, str | None]:
        up = [s for s in stations if f"{s}:{parameters['phase']}:{parameters['round_number']}" not in broken]
        answers = call(up, parameters, **rest)
        return {station: answers.get(station, "its run did not start") for station in stations}

    monkeypatch.setattr(flows.station_rounds, "call_stations", with_some_down)


def as_run(monkeypatch: pytest.MonkeyPatch, run_id: str, *, run_count: int) -> None:
    """The coordinator's flow run as the server knows it: a retry has the same id and a higher count."""
    monkeypatch.setattr(flows.stations, "flow_run", SimpleNamespace(id=run_id, run_count=run_count))


def test_a_station_that_fails_is_named_and_the_quorum_decides(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_calls(monkeypatch, {"station-b:coreset:1"})
    state = coordinate(values(tmp_path, federated={"min_clients": 3}))
    assert state.is_failed()
    assert "2 of 3 clients delivered" in state.message
    assert "station-b: its run did not start" in state.message
    state = coordinate(values(tmp_path, federated={"min_clients": 2}))
    assert state.name == "CompletedPartial"
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert document["federation"]["failed_clients"] == {"station-b": "its run did not start"}


def test_rounds_are_resumed_where_they_stopped(
    calls: list[str], work: Counter[str], plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = values(tmp_path, federated={"num_rounds": 2, "min_clients": 3})
    as_run(monkeypatch, "run-1", run_count=1)
    broken = {"station-b:coreset:2"}
    break_calls(monkeypatch, broken)
    state = coordinate(config)
    assert state.is_failed()
    assert "quorum not met in round 2, 2 of 3 clients delivered" in state.message
    assert work["station-b 1"] == work["station-a 2"] == 1

    calls.clear()
    broken.clear()
    as_run(monkeypatch, "run-1", run_count=2)
    assert coordinate(config).name == "Completed"
    assert calls == [*(f"{s}:coreset:2" for s in STATIONS), *(f"{s}:figures:2" for s in STATIONS)]
    assert {name: n for name, n in work.items() if name.startswith("station")} == {
        f"{station} {number}": 1 for station in STATIONS for number in (1, 2)
    }
    late = {"config": config, "run_id": "run-1", "phase": "coreset", "round_number": 1}
    state = run_station(monkeypatch, plants / "station-a", tmp_path / "station-a", late)
    assert "round 1 of run-1 is closed (3 of 3 stations had delivered)" in state.message


@pytest.mark.slow
def test_a_station_that_misses_a_round_joins_the_next(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_calls(monkeypatch, {"station-b:coreset:1"})
    state = coordinate(values(tmp_path, federated={"num_rounds": 2, "min_clients": 2}))
    assert state.name == "CompletedPartial"
    assert "station-b failed in round 1" in state.message
    federation = document_of(tmp_path / "run").federation
    assert federation.rounds[0].delivered == ["station-a", "station-c"]
    assert federation.rounds[1].delivered == STATIONS
    assert federation.failed_clients == {}


def test_a_station_without_the_provenance_of_what_it_sent_says_so(
    calls: list[str], plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_run(monkeypatch, "run-1", run_count=1)
    config = values(tmp_path)
    assert coordinate(config).is_completed()
    shutil.rmtree(tmp_path / "station-a" / "index" / "sent")
    again = {"config": config, "run_id": "run-1", "phase": "figures", "round_number": 1}
    state = run_station(monkeypatch, plants / "station-a", tmp_path / "station-a", again)
    assert "the provenance of what station-a sent in round 1 is not in its store" in state.message


# --- who computes what again -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stations_join_and_leave_and_data_change_without_the_others_computing_again(
    calls: list[str], work: Counter[str], plants: Path, tmp_path: Path
) -> None:
    config = values(tmp_path)
    a, b, c = STATIONS
    images = {"train": 3, "test": 7}

    def computed(stations: list[str]) -> dict[str, int]:
        work.clear()
        assert coordinate(config, stations).name == "Completed"
        return dict(work)

    each = sum(images.values())
    assert computed([a, b]) == {f"coreset {a}": 1, f"coreset {b}": 1, "extracted": 2 * each, "counted": 14}
    assert computed([a, b, c]) == {f"coreset {c}": 1, "extracted": each, "counted": 21}  # joined: the bank is another
    assert computed([b, c]) == {"counted": 14}  # left
    assert computed([a, b]) == {}
    new = write_image(
        plants / b / "pipe_clip" / "train" / "good" / "new.png", tiny_pixels(np.random.default_rng(9), (64, 48))
    )
    try:
        assert computed([a, b]) == {f"coreset {b}": 1, "extracted": 1, "counted": 14}
    finally:
        new.unlink()
    mask = next((plants / b).rglob("ground_truth/*/*/*.png"))
    before = mask.read_bytes()
    try:
        write_image(mask, np.full((48, 64), 255, np.uint8))
        assert computed([a, b]) == {"counted": 7}
    finally:
        mask.write_bytes(before)


@pytest.mark.slow
def test_what_a_run_of_stations_refers_to_survives_pruning(
    calls: list[str], work: Counter[str], tmp_path: Path
) -> None:
    config = values(tmp_path, federated={"num_rounds": 2})
    assert coordinate(config).is_completed()
    now = 2 * DAY_SECONDS + (tmp_path / "run" / "metrics.json").stat().st_mtime
    for machine in (*STATIONS, "coordinator"):
        report = prune_store(ArtifactStore(tmp_path / machine), keep_days=30, unfinished_days=1, now=now)
        assert report.removed_runs == 0
        gone = prune_store(ArtifactStore(tmp_path / machine), keep_days=1, unfinished_days=1, now=now, dry_run=True)
        assert gone.removed_files > 0
    work.clear()
    assert coordinate(config).is_completed()
    assert work == {}


def test_doubled_stations_and_rounds_without_cover_are_refused(calls: list[str], tmp_path: Path) -> None:
    state = coordinate(values(tmp_path, federated={"num_rounds": 2}, model={"subsampling": "random"}))
    assert "num_rounds is 2, but model.subsampling random" in state.message
    config = ExperimentConfig.model_validate(values(tmp_path))
    assert "different names" in station_coordinator(config, ["a", "a"], return_state=True).message


def test_a_station_without_a_name_is_a_clear_error(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDPATCH_STATION", raising=False)
    config = ExperimentConfig.model_validate(values(tmp_path))
    assert "FEDPATCH_STATION is not set" in station_client(config, "run", return_state=True).message
