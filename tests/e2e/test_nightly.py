"""The scheduled benchmark, on a server that stays and a worker that knows the data set."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e


def test_the_nightly_benchmark_is_scheduled_and_runs_when_it_is_due(guarded: Stack) -> None:
    write_tiny_autovi(guarded.dataset, train=6, good=2, defective=1, seed=5)
    nightly = guarded.api("/deployments/name/full-benchmark/nightly")
    assert nightly["concurrency_limit"] == 1 or nightly["global_concurrency_limit"]["limit"] == 1
    every_minute = {"schedule": {"interval": 60}, "active": True}
    (made,) = guarded.api(f"/deployments/{nightly['id']}/schedules", [every_minute])
    query = {"deployments": {"id": {"any_": [nightly["id"]]}}, "limit": 200}
    deadline = time.monotonic() + 600
    done: list[dict[str, Any]] = []
    while time.monotonic() < deadline and not done:
        time.sleep(1)
        scheduled = [run for run in guarded.api("/flow_runs/filter", query) if run["auto_scheduled"]]
        done = [run for run in scheduled if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]
    guarded.delete(f"/deployments/{nightly['id']}/schedules/{made['id']}")
    assert [run["state_type"] for run in done] == ["COMPLETED"], guarded.logs()
    at_two = [run for run in scheduled if run["expected_start_time"][11:16] == "02:00"]
    assert any(run["state_type"] == "SCHEDULED" for run in at_two)
    rows = guarded.api("/artifacts/filter", {"flow_runs": {"id": {"any_": [done[0]["id"]]}}, "limit": 200})
    (table,) = [json.loads(row["data"]) for row in rows if row["key"] == "comparison"]
    assert {row["experiment"] for row in table} == {"centralized", "iid_3", "iid_5"}
