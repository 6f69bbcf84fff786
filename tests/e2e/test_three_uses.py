"""What the pipeline was ordered for, on a real server with a real worker and, for the retry, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.browser import retry
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e

ENDED = ("COMPLETED", "FAILED", "CRASHED")


def break_client_2(config: dict[str, Any]) -> tuple[Path, Path]:
    """Take one image away from the third client, as a disk does that goes away after the index was made."""
    image = Path(config["dataset"]["root"]) / "pipe_clip" / "train" / "good"
    victim = sorted(image.iterdir())[4]
    return victim, victim.with_suffix(".away")


def test_by_name_from_the_command_line_and_bad_parameters_are_refused(stack: Stack, config: dict[str, Any]) -> None:
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
    retry(stack, flow_run, picture="ui_failed_client")
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
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Partial")
    assert "client_2" in run["state"]["message"]
    retry(stack, flow_run, ui="v2", picture="ui_partial_run")  # too early: the image is still damaged
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert run["state_name"] == "Partial"
    before = stack.task_states(flow_run)
    mend(victim, away)
    uploads = stack.store / "objects" / "client_upload"
    damaged = max(uploads.rglob("*.npz"), key=lambda path: path.stat().st_mtime)
    damaged.write_bytes(b"0" * damaged.stat().st_size)
    retry(stack, flow_run, ui="v1", picture="ui_partial_run_v1")
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed")
    new = Counter(stack.task_states(flow_run)) - Counter(before)
    again = sorted(n for n, s in new if n.startswith(("extract-client_", "coreset-client_")) and s == "Completed")
    assert [name for name in again if name.startswith("extract")] == ["extract-client_2"]
    assert len(again) == 3  # the mended client's coreset, and the one that was damaged
    assert "coreset-client_2" in again


def test_two_runs_of_one_experiment_at_once_compute_each_step_once(stack: Stack, config: dict[str, Any]) -> None:
    other = {**config, "runtime": {**config["runtime"], "out": config["runtime"]["out"] + "-other"}}
    runs = [stack.run_by_name("federated-experiment/on-demand", c) for c in (config, other)]
    assert [stack.wait_for(run)["state_type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    states = [dict(stack.task_states(run)) for run in runs]
    for number in range(5):
        for step in ("extract", "coreset"):
            name = f"{step}-client_{number}"
            assert sorted(state[name] for state in states) == ["Cached", "Completed"], name


def test_the_nightly_benchmark_runs_when_it_is_due(stack: Stack) -> None:
    write_tiny_autovi(stack.dataset, train=10, good=4, defective=2, seed=5)
    deployment = stack.api("/deployments/name/full-benchmark/nightly")
    schedule = {"schedule": {"interval": 60}, "active": True}
    (made,) = stack.api(f"/deployments/{deployment['id']}/schedules", [schedule])
    query = {"deployments": {"id": {"any_": [deployment["id"]]}}, "limit": 200}
    deadline = time.monotonic() + 240
    done: list[dict[str, Any]] = []
    while time.monotonic() < deadline and not done:
        runs = stack.api("/flow_runs/filter", query)
        done = [
            run for run in runs if run["auto_scheduled"] and run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")
        ]
        time.sleep(1)
    stack.delete(f"/deployments/{deployment['id']}/schedules/{made['id']}")
    assert [run["state_type"] for run in done] == ["COMPLETED"], stack.logs()
    rows = stack.api("/artifacts/filter", {"flow_runs": {"id": {"any_": [done[0]["id"]]}}, "limit": 200})
    (table,) = [json.loads(row["data"]) for row in rows if row["key"] == "comparison"]
    assert {row["experiment"] for row in table} == {"centralized", "iid_3", "iid_5"}
