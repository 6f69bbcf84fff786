"""What the pipeline was ordered for, on a real server with a real worker and, for the retry, in a real browser."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.prefect_stack import Stack, running_stack

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def config(stack: Stack, tmp_path: Path) -> dict[str, Any]:
    """Five clients on tiny images, by time, so that a client's images are known."""
    root = write_tiny_autovi(tmp_path / "data", train=10, good=4, defective=2, seed=int(time.time()) % 10_000)
    return experiment_values(
        root, stack.store, tmp_path / "run", federated={"num_clients": 5, "partitioning": "time", "min_clients": 5}
    )


def break_client_2(config: dict[str, Any]) -> tuple[Path, Path]:
    """Take one image away from the third client, as a disk does that goes away after the index was made."""
    image = Path(config["dataset"]["root"]) / "pipe_clip" / "train" / "good"
    victim = sorted(image.iterdir())[4]
    return victim, victim.with_suffix(".away")


def test_by_name_from_the_command_line_and_bad_parameters_are_refused(stack: Stack, config: dict[str, Any]) -> None:
    import json

    done = stack.prefect(
        "deployment", "run", "federated-experiment/on-demand", "--param", f"config={json.dumps(config)}", "--watch"
    )
    assert done.returncode == 0
    assert (Path(config["runtime"]["out"]) / "metrics.json").is_file()
    before = stack.api("/flow_runs/count", {})
    wrong = {**config, "model": {"coreset_percentage": 7}}
    refused = stack.prefect(
        "deployment", "run", "federated-experiment/on-demand", "--param", f"config={json.dumps(wrong)}", check=False
    )
    assert refused.returncode != 0
    assert "coreset_percentage" in refused.stdout + refused.stderr
    assert stack.api("/flow_runs/count", {}) == before


def test_the_schedule_makes_runs(stack: Stack) -> None:
    deadline = time.monotonic() + 60
    names: Counter[str] = Counter()
    while time.monotonic() < deadline and not names:
        runs = stack.api("/flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}}, "limit": 50})
        names = Counter(run["deployment_id"] for run in runs if run["auto_scheduled"])
        time.sleep(1)
    nightly = stack.api("/deployments/name/full-benchmark/nightly")
    assert names[nightly["id"]] > 0
    assert nightly["concurrency_limit"] == 1 or nightly["global_concurrency_limit"]["limit"] == 1


def failing_run(stack: Stack, config: dict[str, Any]) -> tuple[str, Path, Path]:
    """A run in which the third client fails; (flow run, where its image was, where it is)."""
    store = Path(config["runtime"]["store"])
    warm = {**config, "federated": {**config["federated"], "mode": "centralized"}}
    warm["dataset"] = {**config["dataset"]}
    first = stack.run_by_name("centralized-experiment/on-demand", warm)
    assert stack.wait_for(first)["state_type"] == "COMPLETED"
    shutil.rmtree(store / "index" / "image_features")  # what was extracted is gone, the index of the data set stays
    victim, away = break_client_2(config)
    content = victim.read_bytes()
    stat = victim.stat()
    victim.write_bytes(content[::-1])  # same size, another content: the camera's disk returns rubbish
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    away.write_bytes(content)
    return stack.run_by_name("federated-experiment/on-demand", config), victim, away


def mend(victim: Path, away: Path) -> None:
    stat = victim.stat()
    victim.write_bytes(away.read_bytes())
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    away.unlink()


def retry_in_browser(stack: Stack, flow_run: str) -> None:
    """Open the run's page and retry it, as a person does."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(f"{stack.url}/v2/runs/flow-run/{flow_run}")
        menu = page.get_by_role("button", name="Open menu").first
        menu.wait_for(timeout=60_000)
        if directory := os.environ.get("FEDPATCH_SCREENSHOTS"):
            page.wait_for_timeout(3000)
            page.screenshot(path=f"{directory}/ui_failed_client.png")
        menu.click()
        page.get_by_role("menuitem", name="Retry").click()
        page.get_by_role("alertdialog").get_by_role("button", name="Retry").click()
        page.wait_for_timeout(1500)
        browser.close()


def test_a_failed_client_is_retried_from_the_ui_and_nothing_else_runs(stack: Stack, config: dict[str, Any]) -> None:
    flow_run, victim, away = failing_run(stack, config)
    run = stack.wait_for(flow_run)
    assert run["state_type"] == "FAILED"
    assert "client_2" in run["state"]["message"]
    assert victim.name in run["state"]["message"]
    before = stack.task_states(flow_run)
    assert ("extract-client_2", "Failed") in before
    assert Counter(s for n, s in before if n.startswith("extract-client_"))["Completed"] == 4
    mend(victim, away)
    retry_in_browser(stack, flow_run)
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    after = stack.task_states(flow_run)
    new = Counter(after) - Counter(before)
    extracted = {name: state for (name, state) in new if name.startswith("extract-client_")}
    coresets = {name: state for (name, state) in new if name.startswith("coreset-client_")}
    assert extracted == {f"extract-client_{n}": "Completed" if n == 2 else "Cached" for n in range(5)}
    assert coresets == {f"coreset-client_{n}": "Completed" if n == 2 else "Cached" for n in range(5)}
    assert (Path(config["runtime"]["out"]) / "metrics.json").is_file()


def test_a_partial_run_is_retried_to_a_whole_one_and_a_damaged_artifact_is_made_again(
    stack: Stack, config: dict[str, Any]
) -> None:
    config = {**config, "federated": {**config["federated"], "min_clients": 4}}
    flow_run, victim, away = failing_run(stack, config)
    run = stack.wait_for(flow_run)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "CompletedPartial")
    assert "client_2" in run["state"]["message"]
    before = stack.task_states(flow_run)
    mend(victim, away)
    uploads = stack.store / "objects" / "client_upload"
    damaged = max(uploads.rglob("*.npz"), key=lambda path: path.stat().st_mtime)
    damaged.write_bytes(b"0" * damaged.stat().st_size)
    retry_in_browser(stack, flow_run)
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed")
    new = Counter(stack.task_states(flow_run)) - Counter(before)
    again = sorted(n for n, s in new if n.startswith(("extract-client_", "coreset-client_")) and s == "Completed")
    assert [name for name in again if name.startswith("extract")] == ["extract-client_2"]
    assert len(again) == 3  # the mended client's coreset, and the one that was damaged
    assert "coreset-client_2" in again


def test_kill_9_of_the_flow_process_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "data", train=150, good=4, defective=2, size=(640, 480), seed=3)
    config = experiment_values(
        root,
        stack.store,
        tmp_path / "run",
        preprocessing={"small_size": [320, 320]},
        federated={"num_clients": 5, "partitioning": "time", "min_clients": 5},
        runtime={"workers": 1},
    )
    flow_run = stack.run_by_name("federated-experiment/on-demand", config)
    deadline = time.monotonic() + 120
    while ("extract-client_0", "Completed") not in stack.task_states(flow_run):
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.2)
    for process in psutil.Process(stack.worker.pid).children(recursive=True):
        process.kill()
    run = stack.wait_for(flow_run)
    assert run["state_type"] == "CRASHED"
    before = stack.task_states(flow_run)
    finished = {name for name, state in before if state == "Completed" and name.startswith("extract-client_")}
    assert 1 <= len(finished) < 5
    retry_in_browser(stack, flow_run)
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    new = Counter(stack.task_states(flow_run)) - Counter(before)
    assert {name for name, state in new if state == "Cached" and name.startswith("extract-client_")} == finished


def test_two_runs_of_one_experiment_at_once_compute_each_step_once(stack: Stack, config: dict[str, Any]) -> None:
    other = {**config, "runtime": {**config["runtime"], "out": config["runtime"]["out"] + "-other"}}
    runs = [stack.run_by_name("federated-experiment/on-demand", c) for c in (config, other)]
    assert [stack.wait_for(run)["state_type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    states = [dict(stack.task_states(run)) for run in runs]
    for number in range(5):
        for step in ("extract", "coreset"):
            name = f"{step}-client_{number}"
            assert sorted(state[name] for state in states) == ["Cached", "Completed"], name


def test_a_due_scheduled_run_runs(stack: Stack) -> None:
    deployment = stack.api("/deployments/name/store-prune/weekly")
    stack.api(f"/deployments/{deployment['id']}/schedules", [{"schedule": {"interval": 15}, "active": True}])
    deadline = time.monotonic() + 150
    done: list[dict[str, Any]] = []
    while time.monotonic() < deadline and not done:
        query = {"deployments": {"id": {"any_": [deployment["id"]]}}, "limit": 200}
        runs = stack.api("/flow_runs/filter", query)
        done = [run for run in runs if run["auto_scheduled"] and run["state_type"] == "COMPLETED"]
        time.sleep(1)
    assert done, stack.logs()
