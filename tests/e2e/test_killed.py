"""kill -9 of the flow process, of the worker, of both, of all: nothing finished is lost, and nothing blocks a retry."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.browser import keep, open_page, retry
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e


def slow_config(stack: Stack, directory: Path, *, seed: int) -> dict[str, Any]:
    """Five clients, one after the other, each long enough to be killed in the middle of."""
    root = write_tiny_autovi(directory / "data", train=150, good=4, defective=2, size=(640, 480), seed=seed)
    return experiment_values(
        root,
        stack.store,
        directory / "run",
        preprocessing={"small_size": [320, 320]},
        federated={"num_clients": 5, "partitioning": "time", "min_clients": 5},
        runtime={"workers": 1},
    )


def in_the_middle_of_a_client(stack: Stack, config: dict[str, Any]) -> str:
    """A flow run whose first client is done and whose second one is at work."""
    flow_run = stack.run_by_name("federated-experiment/on-demand", config)
    deadline = time.monotonic() + 120
    while ("extract-client_0", "Completed") not in stack.task_states(flow_run):
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.2)
    return flow_run


def finished_clients(states: list[tuple[str, str]]) -> set[str]:
    """The clients whose features are extracted."""
    return {name for name, state in states if state == "Completed" and name.startswith("extract-client_")}


def check_retry_goes_on(stack: Stack, flow_run: str, run_count: int) -> None:
    """Retry in the UI finishes the run with the finished clients served from their artifacts."""
    before = stack.task_states(flow_run)
    finished = finished_clients(before)
    assert 1 <= len(finished) < 5
    retry(stack, flow_run)
    run = stack.wait_for(flow_run, beyond=run_count)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    new = Counter(stack.task_states(flow_run)) - Counter(before)
    assert {name for name, state in new if state == "Cached" and name.startswith("extract-client_")} == finished
    assert not list(stack.store.rglob("*.tmp"))


def test_kill_9_of_the_flow_process_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    flow_run = in_the_middle_of_a_client(stack, slow_config(stack, tmp_path, seed=3))
    reports = stack.worker_reports()
    for process in psutil.Process(stack.worker.pid).children(recursive=True):
        process.kill()
    run = stack.wait_for(flow_run)
    assert run["state_type"] == "CRASHED"
    deadline = time.monotonic() + 120
    while stack.worker_reports() == reports:
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.2)
    with open_page(stack, f"runs/flow-run/{flow_run}") as page:
        page.get_by_text("Crashed").first.wait_for()
        keep(page, "ui_crashed_run")
    check_retry_goes_on(stack, flow_run, run["run_count"])


def test_kill_9_of_the_worker_alone_crashes_its_run(stack: Stack, tmp_path: Path) -> None:
    flow_run = in_the_middle_of_a_client(stack, slow_config(stack, tmp_path, seed=4))
    stack.kill_worker(with_runs=False)
    run = stack.wait_for(flow_run)  # the flow process sees that its worker is gone and ends
    assert run["state_type"] == "CRASHED"
    stack.start_worker()
    check_retry_goes_on(stack, flow_run, run["run_count"])


def test_kill_9_of_the_worker_with_its_run_is_noticed_and_retried(stack: Stack, tmp_path: Path) -> None:
    flow_run = in_the_middle_of_a_client(stack, slow_config(stack, tmp_path, seed=5))
    stack.kill_worker(with_runs=True)
    assert stack.api(f"/flow_runs/{flow_run}")["state_type"] == "RUNNING"
    run = stack.wait_for(flow_run, seconds=240)
    assert run["state_type"] == "CRASHED"
    assert "Nothing was heard of this run" in run["state"]["message"]
    stack.start_worker()
    check_retry_goes_on(stack, flow_run, run["run_count"])


def test_a_power_cut_overnight_is_noticed_when_the_server_is_back(stack: Stack, tmp_path: Path) -> None:
    flow_run = in_the_middle_of_a_client(stack, slow_config(stack, tmp_path, seed=6))
    stack.kill_worker(with_runs=True)
    stack.kill_server()
    yesterday = str(datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1))
    with sqlite3.connect(stack.home / "prefect" / "prefect.db") as database:  # as if it had been off since yesterday
        assert database.execute('update automation_bucket set "end" = ?', (yesterday,)).rowcount >= 1
    database.close()
    stack.start_server()
    run = stack.wait_for(flow_run, seconds=240)
    assert run["state_type"] == "CRASHED"
    assert "Nothing was heard of this run" in run["state"]["message"]
    stack.start_worker()
    check_retry_goes_on(stack, flow_run, run["run_count"])
