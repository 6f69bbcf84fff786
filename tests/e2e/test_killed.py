"""kill -9 of the flow process, of the worker, of both, of all: nothing finished is lost, and nothing blocks a retry."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.steps.ends_with_worker import WORKER_ENDED
from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.browser import go_to, keep, open_page, retry
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e

CLIENTS = 8
HEARD = """
import asyncio, sys
from datetime import datetime, timedelta
from prefect.server.database import provide_database_interface
from sqlalchemy import select

async def heard(since, days):
    database = provide_database_interface()
    bucket = database.AutomationBucket
    while True:
        async with database.session_context(begin_transaction=True) as session:
            found = (await session.scalars(select(bucket).where(bucket.start >= datetime.fromisoformat(since)))).all()
            for one in found:
                one.end -= timedelta(days=int(days))
        if found:
            return
        await asyncio.sleep(0.5)

asyncio.run(heard(*sys.argv[1:]))
"""  # waits until the server has heard of a run since a time; then as if that had been so many days ago


def slow_config(stack: Stack, directory: Path) -> dict[str, Any]:
    """Eight clients, one after the other, each long enough to be killed in the middle of."""
    root = write_tiny_autovi(directory / "data", train=20 * CLIENTS, good=2, defective=1, size=(320, 240), seed=3)
    return experiment_values(
        root,
        stack.store,
        directory / "run",
        preprocessing={"small_size": [320, 320]},
        federated={"num_clients": CLIENTS, "partitioning": "time", "min_clients": CLIENTS},
        runtime={"workers": 1},
    )


def clients(states: list[tuple[str, str]], state: str) -> set[str]:
    """The clients whose extraction is in a state."""
    return {name for name, found in states if found == state and name.startswith("extract-client_")}


def stop_in_the_middle(stack: Stack, flow_run: str, *, after: int) -> list[psutil.Process]:
    """Wait until more than `after` clients are done and another one's bar moves; then stop the run's processes.

    Stopped, the run stays in the middle of what it is at, for as long as a slow machine takes to look and to kill.
    """
    deadline = time.monotonic() + 300
    while len(clients(stack.task_states(flow_run), "Completed")) <= after or not any(
        0 < bar["data"] < 100 for bar in bars_of(stack, flow_run).values()
    ):
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.1)
    processes = stack.processes_of_runs()
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    assert after < len(clients(stack.task_states(flow_run), "Completed")) < CLIENTS
    return processes


def bars_of(stack: Stack, flow_run: str) -> dict[str, dict[str, Any]]:
    """The progress artifacts of a run, by key."""
    query = {"flow_runs": {"id": {"any_": [flow_run]}}, "artifacts": {"type": {"any_": ["progress"]}}, "limit": 200}
    return {row["key"]: row for row in stack.api("/artifacts/filter", query)}


def retry_crashed(stack: Stack, flow_run: str, *, attempt: int, because: str = "") -> list[tuple[str, str]]:
    """See that the run is Crashed in this attempt, and click on Retry; the states of its tasks before that."""
    run = stack.wait_for(flow_run, beyond=attempt - 1)
    assert (run["state_type"], run["run_count"]) == ("CRASHED", attempt)
    assert because in run["state"]["message"]
    states = stack.task_states(flow_run)
    retry(stack, flow_run)
    return states


def test_kill_9_of_the_run_its_worker_both_and_the_server_loses_nothing(guarded: Stack, tmp_path: Path) -> None:
    flow_run = guarded.run_by_name("federated-experiment/on-demand", slow_config(guarded, tmp_path))

    processes = stop_in_the_middle(guarded, flow_run, after=0)
    bar = bars_of(guarded, flow_run)["extract-client-0"]
    assert bar["data"] == 100.0
    with open_page(guarded, f"artifacts/artifact/{bar['id']}") as page:
        page.get_by_text("client_0: images extracted").first.wait_for()
        keep(page, "ui_progress")
        for process in processes:
            process.kill()
        guarded.wait_for_the_workers_report(flow_run)
        go_to(page, guarded, f"runs/flow-run/{flow_run}")
        page.get_by_text("Crashed").first.wait_for()
        keep(page, "ui_crashed_run")
    states = retry_crashed(guarded, flow_run, attempt=1)

    processes = stop_in_the_middle(guarded, flow_run, after=len(clients(states, "Completed")))
    since = guarded.api(f"/flow_runs/{flow_run}")["state"]["timestamp"]
    guarded.python("-c", HEARD, since, "0")  # a busy server reads heartbeats late
    guarded.kill_worker()
    for process in processes:
        process.kill()
    guarded.kill_server()
    guarded.python("-c", HEARD, since, "1")  # as if it had been off since yesterday
    guarded.start_server()
    guarded.start_worker()
    states = retry_crashed(guarded, flow_run, attempt=2, because="Nothing was heard of this run")

    processes = stop_in_the_middle(guarded, flow_run, after=len(clients(states, "Completed")))
    guarded.kill_worker()
    for process in processes:
        process.send_signal(signal.SIGCONT)
    crashed = guarded.wait_for(flow_run, beyond=2)
    assert crashed["state"]["message"] == WORKER_ENDED
    assert not psutil.wait_procs(processes, timeout=60)[1]  # in the middle of a client, with others not begun
    assert clients(guarded.task_states(flow_run), "Completed") < {f"extract-client_{i}" for i in range(CLIENTS)}
    guarded.start_worker()
    states = retry_crashed(guarded, flow_run, attempt=3)

    run = guarded.wait_for(flow_run, beyond=3)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    all_states = guarded.task_states(flow_run)
    assert max(Counter(all_states)[name, "Completed"] for name in clients(all_states, "Completed")) == 1
    last = list((Counter(all_states) - Counter(states)).elements())
    assert clients(last, "Cached") >= clients(states, "Completed")
    assert len(clients(last, "Cached") | clients(last, "Completed")) == CLIENTS
    assert not list(guarded.store.rglob("*.tmp"))
