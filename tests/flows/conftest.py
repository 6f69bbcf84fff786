"""Stations whose runs take place here instead of being called through a server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import flows.across_machines.coordinator
from tests.dataset_fixtures import write_tiny_autovi
from tests.station_fixtures import STATIONS, run_station


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

    monkeypatch.setattr(flows.across_machines.coordinator, "call_stations", call)
    return made


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often something was computed: coresets by station, images extracted, maps counted."""
    import tasks.clients
    import tasks.stations
    from pipeline_lib.features import extraction

    done: Counter[str] = Counter()

    def counted(module: Any, name: str, key: Any) -> None:
        original = getattr(module, name)

        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            label, n = key(*arguments)
            done[label] += n
            return original(*arguments, **keywords)

        monkeypatch.setattr(module, name, wrapper)

    counted(
        tasks.clients.rounds,
        "select_client_coreset",
        lambda table, store, name, s: (f"coreset {name} {s.round}", 1),
    )
    counted(tasks.stations.pooled_figures, "station_figures", lambda images: ("counted", len(images)))
    counted(extraction, "extract_batch", lambda *_: ("extracted", 1))
    return done
