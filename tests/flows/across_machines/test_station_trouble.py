"""Stations that fail, are late, replay, join or leave, and whose data change: what is said, and who computes again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import flows.across_machines.coordinator
import flows.stations
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.retention import DAY_SECONDS, prune_store
from tests.dataset_fixtures import tiny_pixels, write_image
from tests.station_fixtures import STATIONS, coordinate, document_of, run_station, values

pytestmark = pytest.mark.usefixtures("prefect_server")


def break_calls(monkeypatch: pytest.MonkeyPatch, broken: set[str]) -> None:
    """Calls named in `broken` (station:phase:round) do not come to a run, as when the worker is down."""
    call = flows.across_machines.coordinator.call_stations

    def with_some_down(stations: list[str], parameters: dict[str, Any], **rest: Any) -> dict[str, str | None]:
        up = [s for s in stations if f"{s}:{parameters['phase']}:{parameters['round_number']}" not in broken]
        answers = call(up, parameters, **rest)
        return {station: answers.get(station, "its run did not start") for station in stations}

    monkeypatch.setattr(flows.across_machines.coordinator, "call_stations", with_some_down)


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
    assert state.name == "Partial"
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert document["federation"]["failed_clients"] == {"station-b": "its run did not start"}


@pytest.mark.slow
def test_a_replayed_upload_and_a_station_without_the_provenance_of_what_it_sent_say_so(
    calls: list[str], plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = values(tmp_path, federated={"min_clients": 2})
    as_run(monkeypatch, "run-1", run_count=1)
    assert coordinate(config).name == "Completed"
    call = flows.across_machines.coordinator.call_stations
    uploads = tmp_path / "shared" / "{run}" / "round_001" / "uploads" / "station-b"

    def with_a_replay(stations: list[str], parameters: dict[str, Any], **rest: Any) -> dict[str, str | None]:
        answers = call(stations, parameters, **rest)
        if parameters["phase"] == "coreset":
            old, new = (str(uploads).format(run=run) for run in ("run-1", "run-2"))
            shutil.copytree(old, new, dirs_exist_ok=True)
        return answers

    monkeypatch.setattr(flows.across_machines.coordinator, "call_stations", with_a_replay)
    as_run(monkeypatch, "run-2", run_count=1)
    state = coordinate(config)
    assert state.name == "Partial"
    assert "uploads of station-b refused: its manifest says run_id 'run-1', expected 'run-2'" in state.message
    assert "replay of another run" in document_of(tmp_path / "run").federation.refused_uploads["station-b"]

    shutil.rmtree(tmp_path / "station-a" / "index" / "sent")
    again = {"config": config, "run_id": "run-1", "phase": "figures", "round_number": 1}
    state = run_station(monkeypatch, plants / "station-a", tmp_path / "station-a", again)
    assert "the provenance of what station-a sent in round 1 is not in its store" in state.message


@pytest.mark.slow
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
    assert work["coreset station-b 1"] == work["coreset station-a 2"] == 1

    calls.clear()
    broken.clear()
    as_run(monkeypatch, "run-1", run_count=2)
    assert coordinate(config).name == "Completed"
    assert calls == [*(f"{s}:coreset:2" for s in STATIONS), *(f"{s}:figures:2" for s in STATIONS)]
    assert {name: n for name, n in work.items() if name.startswith("coreset")} == {
        f"coreset {station} {number}": 1 for station in STATIONS for number in (1, 2)
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
    assert state.name == "Partial"
    assert "station-b failed in round 1" in state.message
    federation = document_of(tmp_path / "run").federation
    assert federation.rounds[0].delivered == ["station-a", "station-c"]
    assert federation.rounds[1].delivered == STATIONS
    assert federation.failed_clients == {}


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
    assert computed([a, b]) == {f"coreset {a} 1": 1, f"coreset {b} 1": 1, "extracted": 2 * each, "counted": 14}
    assert computed([a, b, c]) == {f"coreset {c} 1": 1, "extracted": each, "counted": 21}  # joined: the bank is another
    assert computed([b, c]) == {"counted": 14}  # left
    new = write_image(
        plants / b / "pipe_clip" / "train" / "good" / "new.png", tiny_pixels(np.random.default_rng(9), (64, 48))
    )
    mask = next((plants / b).rglob("ground_truth/*/*/*.png"))
    before = mask.read_bytes()
    try:
        assert computed([b, c]) == {f"coreset {b} 1": 1, "extracted": 1, "counted": 14}
        write_image(mask, np.full((48, 64), 255, np.uint8))
        assert computed([b, c]) == {"counted": 7}
    finally:
        new.unlink()
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
