"""Three stations and a coordinator, each with a worker, a queue, a user and directories of its own: the whole story."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from tests.conftest import experiment_values
from tests.dataset_fixtures import tiny_pixels, write_image
from tests.e2e.browser import ARGUMENTS, keep, open_page, retry
from tests.e2e.prefect_stack import Stack
from tests.e2e.station_users import COORDINATOR, Plant, made_plant, why_not

pytestmark = pytest.mark.e2e

A, B, C = STATIONS = ["station-a", "station-b", "station-c"]
SECONDS = 420
DEADLINE_S = 100.0
SHARED_FILES = {"manifest.json", "closed.json"}
ARRAYS = {
    "uploads": {"rows"},
    "banks": {"features", "client_ids", "row_client"},
    "figures": {
        *("image_scores", "label_index", "bins", "normal_px", "marked_px", "spro_lift", "n_channels"),
        *("category", "block", "score"),
    },
}


@pytest.fixture
def plant(stack: Stack) -> Iterator[Plant]:
    """Workers of the coordinator, station-a and station-b, which has no images yet; station-c is not up."""
    if reason := why_not():
        pytest.skip(reason)
    with made_plant(stack, STATIONS) as made:
        made.deploy()
        for seed, station in enumerate((A, C)):
            made.write_data(station, seed=seed)
        for machine in (COORDINATOR, A, B):
            made.start(machine)
        yield made


def start(plant: Plant, stations: list[str], name: str, *, deadline_s: float = SECONDS) -> str:
    """Trigger the coordinator by name; two stations are enough."""
    out = plant.home(COORDINATOR) / name
    made = experiment_values(Path("-"), Path("-"), out, federated={"min_clients": 2})
    config = {**made, "name": name, "dataset": {}, "runtime": {"out": str(out)}}
    deployment = plant.stack.api("/deployments/name/station-coordinator/plant")
    parameters = {"config": config, "stations": stations, "deadline_s": deadline_s}
    run: str = plant.stack.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]
    return run


def children(stack: Stack, coordinator: str, phase: str) -> dict[str, dict[str, Any]]:
    """Station -> its latest run in a phase of one coordinator's run."""
    found = {}
    for station in STATIONS:
        deployment = stack.api(f"/deployments/name/station-client/{station}")
        query = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        for run in stack.api("/flow_runs/filter", query):
            if run["parameters"]["run_id"] == coordinator and run["parameters"]["phase"] == phase:
                found[station] = run
    return found


def states(stack: Stack, run: dict[str, Any]) -> dict[str, str]:
    """Task run name -> state name of a station's run."""
    return dict(stack.task_states(run["id"]))


def document(plant: Plant, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((plant.home(COORDINATOR) / name / "metrics.json").read_text())
    return found


def test_the_whole_story_of_three_stations(stack: Stack, plant: Plant) -> None:
    first = check_a_station_that_fails_is_mended_and_retried_by_itself(stack, plant)
    second = check_a_station_joins_whose_worker_is_down(stack, plant)
    third = check_a_station_leaves_and_anothers_data_change(stack, plant)
    check_each_machine_is_kept_to_its_own(plant, [first, second, third])
    picture_of_the_report(plant)


def check_a_station_that_fails_is_mended_and_retried_by_itself(stack: Stack, plant: Plant) -> str:
    """With a click on Retry; the coordinator, retried too, picks its result up."""
    coordinator = start(plant, [A, B], "first")
    failed = stack.wait_for(coordinator, seconds=SECONDS)
    assert failed["state_type"] == "FAILED", failed["state"]["message"]
    assert "quorum not met, 1 of 2 clients delivered" in failed["state"]["message"]
    assert f"{B}: " in failed["state"]["message"]

    plant.write_data(B, seed=7)
    broken = children(stack, coordinator, "coreset")[B]
    retry(stack, broken["id"], picture="ui_station_failed")
    assert stack.wait_for(broken["id"], beyond=1, seconds=SECONDS)["state_type"] == "COMPLETED"
    retry(stack, coordinator, picture="ui_coordinator_failed")
    done = stack.wait_for(coordinator, beyond=1, seconds=SECONDS)
    assert done["state_name"] == "Completed", done["state"]["message"]
    assert {s: run["run_count"] for s, run in children(stack, coordinator, "coreset").items()} == {A: 1, B: 2}
    assert {s: run["run_count"] for s, run in children(stack, coordinator, "figures").items()} == {A: 1, B: 1}
    found = document(plant, "first")
    assert found["federation"]["failed_clients"] == {}
    assert found["categories"]["pipe_clip"]["n_good"] == 6
    assert found["categories"]["pipe_clip"]["decision"]["n_calibration"] == 8
    return coordinator


def check_a_station_joins_whose_worker_is_down(stack: Stack, plant: Plant) -> str:
    """Late, deadline, quorum; a click on Retry is refused, one on the coordinator's takes it in. No other computes."""
    coordinator = start(plant, STATIONS, "second", deadline_s=DEADLINE_S)
    with open_page(stack, f"runs/flow-run/{late_run(stack, coordinator)}") as page:
        page.get_by_text("Late").first.wait_for()
        keep(page, "ui_station_late")
    partial = stack.wait_for(coordinator, seconds=SECONDS)
    assert partial["state_name"] == "Partial", partial["state"]["message"]
    assert f"{C}: its run did not start within {DEADLINE_S:g} s" in partial["state"]["message"]
    runs = children(stack, coordinator, "coreset")
    assert runs[C]["state_type"] == "CANCELLED"
    for station in (A, B):
        assert states(stack, runs[station])[f"coreset-{station}"] == "Cached"
        assert states(stack, runs[station])[f"extract-{station}"] == "Cached"

    plant.start(C)
    retry(stack, runs[C]["id"])
    late = stack.wait_for(runs[C]["id"], seconds=SECONDS)
    assert late["state_type"] == "FAILED"
    assert f"round 1 of {coordinator} is closed (2 of 3 stations had delivered)" in late["state"]["message"]

    retry(stack, coordinator)
    done = stack.wait_for(coordinator, beyond=1, seconds=SECONDS)
    assert done["state_name"] == "Completed", done["state"]["message"]
    runs = children(stack, coordinator, "coreset")
    assert {station: run["run_count"] for station, run in runs.items()} == {A: 1, B: 1, C: 2}
    assert document(plant, "second")["categories"]["pipe_clip"]["n_good"] == 9
    return coordinator


def late_run(stack: Stack, coordinator: str) -> str:
    """The id of the run of the station that is down, once the server calls it Late."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        run = children(stack, coordinator, "coreset").get(C, {})
        if run.get("state_name") == "Late":
            return str(run["id"])
        time.sleep(1)
    raise AssertionError(f"the run of {C} was never Late: {stack.logs()}")


def check_a_station_leaves_and_anothers_data_change(stack: Stack, plant: Plant) -> str:
    """station-a leaves, station-b has one image more: station-c selects nothing anew, station-b its coreset."""
    new = write_image(
        plant.home(B) / "data/pipe_clip/train/good/new.png", tiny_pixels(np.random.default_rng(9), (64, 48))
    )
    new.chmod(0o644)
    coordinator = start(plant, [B, C], "third")
    done = stack.wait_for(coordinator, seconds=SECONDS)
    assert done["state_name"] == "Completed", done["state"]["message"]
    runs = children(stack, coordinator, "coreset")
    assert sorted(runs) == [B, C]
    assert (states(stack, runs[C])[f"extract-{C}"], states(stack, runs[C])[f"coreset-{C}"]) == ("Cached", "Cached")
    assert (states(stack, runs[B])[f"extract-{B}"], states(stack, runs[B])[f"coreset-{B}"]) == (
        "Completed",
        "Completed",
    )
    clients = document(plant, "third")["federation"]["clients"]
    assert {station: client["train_images"] for station, client in clients.items()} == {B: 5, C: 4}
    rows = json.loads(artifact(stack, coordinator, "stations")["data"])
    assert [(row["station"], row["missing"]) for row in rows] == [(B, ""), (C, "")]
    with open_page(stack, f"artifacts/artifact/{artifact(stack, coordinator, 'stations')['id']}") as page:
        page.get_by_text(B).first.wait_for()
        keep(page, "ui_stations")
    return coordinator


def artifact(stack: Stack, flow_run: str, key: str) -> dict[str, Any]:
    query = {"flow_runs": {"id": {"any_": [flow_run]}}, "artifacts": {"key": {"any_": [key]}}, "limit": 1}
    (found,) = stack.api("/artifacts/filter", query)
    return dict(found)


def check_each_machine_is_kept_to_its_own(plant: Plant, runs: list[str]) -> None:
    """A read across is refused, and in the shared place lie uploads, banks, figures and manifests alone."""
    for reader in plant.machines:
        for owner in plant.machines:
            target = plant.home(owner) / ("store" if owner == COORDINATOR else "data")
            done = plant.as_user(reader, "-c", f"import os; print(os.listdir({str(target)!r}))")
            if reader == owner:
                assert done.returncode == 0, done.stderr
            else:
                assert "PermissionError" in done.stderr, f"{reader} could read {target}: {done.stdout}"
    assert {path.name for path in plant.shared.iterdir()} == set(runs)
    users = {machine: plant.home(machine).stat().st_uid for machine in plant.machines}
    n_checked = 0
    for path in plant.shared.rglob("*"):
        parts = path.relative_to(plant.shared).parts
        if path.is_dir():
            continue
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                assert set(arrays.files) <= ARRAYS[parts[2]], path
            n_checked += 1
        else:
            assert path.name in SHARED_FILES
            assert str(plant.root) not in path.read_text()
        assert path.stat().st_uid == users[parts[3] if len(parts) > 3 else COORDINATOR]
    assert n_checked >= 3 * 3


def picture_of_the_report(plant: Plant) -> None:
    """The coordinator's report, which holds no image; kept where FEDPATCH_SCREENSHOTS says so."""
    path = plant.home(COORDINATOR) / "second" / "report.html"
    assert "data:image" not in path.read_text()
    if os.environ.get("FEDPATCH_SCREENSHOTS"):
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1200, "height": 1000})
            page.goto(path.as_uri())
            keep(page, "stations_report")
            browser.close()
