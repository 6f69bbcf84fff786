"""Three stations, each with a worker, a queue, data and a store of its own, and a coordinator."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e

STATIONS = ["station-a", "station-b", "station-c"]
SECONDS = 420
COORDINATOR = "station-coordinator/on-demand"


def deploy(stack: Stack, directory: Path) -> None:
    """A deployment and a queue for each station."""
    blocks = [
        {
            "name": station,
            "entrypoint": "flows.stations.station_client",
            "work_pool": {"name": "stations", "work_queue_name": station},
        }
        for station in STATIONS
    ]
    file = directory / "stations.yaml"
    file.write_text(yaml.safe_dump({"name": "stations", "deployments": blocks}))
    stack.prefect("deploy", "--all", "--no-prompt", "--prefect-file", str(file))


@pytest.fixture
def stations(stack: Stack, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Workers of all stations by name; station-b has no data yet."""
    deploy(stack, tmp_path)
    for seed, station in enumerate(STATIONS):
        if station != "station-b":
            write_tiny_autovi(tmp_path / station, train=4, good=3, defective=2, seed=seed)
    workers = {station: stack.start_station(station, tmp_path / station) for station in STATIONS}
    yield workers
    for worker in workers.values():
        stop(worker)


def stop(worker: Any) -> None:
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def start(stack: Stack, out: Path, *, min_clients: int, deadline_s: float) -> str:
    """Trigger the coordinator by name."""
    values = experiment_values(Path("-"), Path("-"), out, federated={"min_clients": min_clients})
    config = {**values, "dataset": {}, "runtime": {"out": str(out)}}
    deployment = stack.api(f"/deployments/name/{COORDINATOR}")
    parameters = {"config": config, "stations": STATIONS, "deadline_s": deadline_s}
    run: str = stack.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]
    return run


def children(stack: Stack, coordinator: str, phase: str) -> dict[str, dict[str, Any]]:
    """Station -> its run in a phase of one coordinator's run."""
    found = {}
    for station in STATIONS:
        deployment = stack.api(f"/deployments/name/station-client/{station}")
        query = {"deployments": {"id": {"any_": [deployment["id"]]}}, "limit": 200}
        for run in stack.api("/flow_runs/filter", query):
            if run["parameters"]["run_id"] == coordinator and run["parameters"]["phase"] == phase:
                found[station] = run
    return found


def retry(stack: Stack, flow_run: str) -> None:
    """What the button Retry of the UI asks the server for."""
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    stack.api(f"/flow_runs/{flow_run}/set_state", {"state": state, "force": True})


def test_a_station_fails_is_mended_and_retried_and_the_coordinator_picks_it_up(
    stack: Stack, stations: dict[str, Any], tmp_path: Path
) -> None:
    coordinator = start(stack, tmp_path / "run", min_clients=3, deadline_s=SECONDS)
    failed = stack.wait_for(coordinator, seconds=SECONDS)
    assert failed["state_type"] == "FAILED"
    assert "2 of 3 clients delivered" in failed["state"]["message"]
    assert "station-b: " in failed["state"]["message"]

    write_tiny_autovi(tmp_path / "station-b", train=4, good=3, defective=2, seed=7)
    broken = children(stack, coordinator, "coreset")["station-b"]
    retry(stack, broken["id"])
    assert stack.wait_for(broken["id"], beyond=1, seconds=SECONDS)["state_type"] == "COMPLETED"
    retry(stack, coordinator)
    done = stack.wait_for(coordinator, beyond=1, seconds=SECONDS)
    assert done["state_name"] == "Completed", done["state"]["message"]
    runs = {station: run["run_count"] for station, run in children(stack, coordinator, "coreset").items()}
    assert runs == {"station-a": 1, "station-b": 2, "station-c": 1}
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert document["federation"]["failed_clients"] == {}
    assert document["categories"]["pipe_clip"]["n_good"] == 9

    check_a_worker_that_is_down(stack, stations, tmp_path)


def check_a_worker_that_is_down(stack: Stack, stations: dict[str, Any], tmp_path: Path) -> None:
    """Deadline and quorum go on without it; when it is back, a retry of the coordinator has its run made up."""
    stop(stations["station-c"])
    coordinator = start(stack, tmp_path / "second", min_clients=2, deadline_s=120)
    partial = stack.wait_for(coordinator, seconds=SECONDS)
    assert partial["state_name"] == "CompletedPartial", partial["state"]["message"]
    assert "station-c: its run did not start within 120 s" in partial["state"]["message"]
    assert children(stack, coordinator, "coreset")["station-c"]["state_type"] == "CANCELLED"

    stations["station-c"] = stack.start_station("station-c", tmp_path / "station-c")
    retry(stack, coordinator)
    done = stack.wait_for(coordinator, beyond=1, seconds=SECONDS)
    assert done["state_name"] == "Completed", done["state"]["message"]
    document = json.loads((tmp_path / "second" / "metrics.json").read_text())
    assert document["categories"]["pipe_clip"]["n_good"] == 9
