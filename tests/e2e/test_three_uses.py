"""What the pipeline was ordered for, on a real server with a real worker and, for the retry, in a real browser."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.browser import retry
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e
OF_A_CLIENT = ("extract-client_{}", "coreset-client_{}-round-1")

PYTHON = """
import json, sys
from prefect import get_client
from prefect.deployments import run_deployment
known, wrong, parameters = sys.argv[1], *map(json.loads, sys.argv[2:])
with get_client(sync_client=True) as client:
    print(client.read_flow_run(known).state.result())
try:
    run_deployment("federated-experiment/on-demand", parameters={"config": wrong}, timeout=0)
except Exception as error:
    print("refused:", " ".join(str(error).split()))
run = run_deployment("score-images/on-demand", parameters=parameters, timeout=300, poll_interval=1)
print(run.state.name)
print(run.state.result())
"""


@dataclass(frozen=True)
class Known:
    """A data set that a run by name has seen; its index is in the store."""

    config: dict[str, Any]
    flow_run: str

    def with_clients(self, out: Path, number: int, *, min_clients: int) -> dict[str, Any]:
        """The run with other clients, each a stretch of time, into another directory."""
        federated = {"num_clients": number, "partitioning": "time", "min_clients": min_clients}
        return {
            **self.config,
            "federated": {**self.config["federated"], **federated},
            "runtime": {**self.config["runtime"], "out": str(out)},
        }


@pytest.fixture(scope="module")
def known(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Ten images over three clients, run by name from the command line."""
    home = tmp_path_factory.mktemp("known")
    root = write_tiny_autovi(home / "data", train=10, good=4, defective=2, seed=int(time.time()) % 10_000)
    config = experiment_values(root, stack.store, home / "run")
    name = "federated-experiment/on-demand"
    stack.prefect("deployment", "run", name, "--param", f"config={json.dumps(config)}", "--watch")
    return Known(config, stack.newest_run(of=name, besides=set()))


def test_by_name_results_come_back_and_bad_parameters_are_refused(stack: Stack, known: Known, tmp_path: Path) -> None:
    out, scored = Path(known.config["runtime"]["out"]), tmp_path / "scored"
    assert stack.wait_for(known.flow_run)["state_name"] == "Completed"
    before = stack.api("/flow_runs/count", {})
    wrong = {**known.config, "model": {"coreset_percentage": 7}}
    refused = stack.prefect(
        "deployment", "run", "federated-experiment/on-demand", "--param", f"config={json.dumps(wrong)}", check=False
    )
    assert refused.returncode != 0
    assert "coreset_percentage" in refused.stdout + refused.stderr

    images = Path(known.config["dataset"]["root"]) / "pipe_clip" / "test"
    parameters = {"model": str(out), "paths": [str(images)], "out": str(scored), "category": "pipe_clip"}
    printed = stack.python("-c", PYTHON, known.flow_run, json.dumps(wrong), json.dumps(parameters)).splitlines()
    result, refusal, state, decisions = printed[-4:]
    assert json.loads(result)["run_directory"] == str(out)
    assert json.loads(result)["failed_clients"] == {}
    assert (out / "metrics.json").is_file()
    assert refusal.startswith("refused:")
    assert "coreset_percentage" in refusal
    assert stack.api("/flow_runs/count", {}) == before + 1  # the refused ones made no run
    assert state == "Completed"
    table = pd.read_parquet(scored / "decisions.parquet")
    assert len(table) == len(json.loads(decisions)) == len(list(images.rglob("*.png")))
    assert set(table.decision) <= {"good", "defective"}
    assert (scored / str(table.picture.iloc[0])).is_file()


def broken_run(stack: Stack, config: dict[str, Any]) -> tuple[str, Path]:
    """A run in which the client of the fifth image fails: (flow run, what stands in its way, to be removed).

    Where the store records that image's features lies a directory.
    """
    image = sorted((Path(config["dataset"]["root"]) / "pipe_clip" / "train" / "good").iterdir())[4]
    tables = pd.concat(map(pd.read_parquet, (stack.store / "objects" / "patch_features").rglob("*.parquet")))
    features = set(tables.path[tables.image_sha256 == hashlib.sha256(image.read_bytes()).hexdigest()])
    records = stack.store / "index" / "image_features"
    (record,) = [one for one in records.rglob("*.json") if json.loads(one.read_text())["manifest"]["path"] in features]
    shutil.rmtree(records)  # what was extracted is gone
    record.mkdir(parents=True)
    return stack.run_by_name("federated-experiment/on-demand", config), record


def test_a_failed_client_is_retried_from_the_ui_and_nothing_else_runs(
    stack: Stack, known: Known, tmp_path: Path
) -> None:
    flow_run, in_the_way = broken_run(stack, known.with_clients(tmp_path, 5, min_clients=5))
    run = stack.wait_for(flow_run)
    in_the_way.rmdir()
    assert run["state_type"] == "FAILED", run["state"]["message"]
    assert "client_2" in run["state"]["message"]
    assert in_the_way.name in run["state"]["message"]
    before = stack.task_states(flow_run)
    extracted = {name: state for name, state in before if name.startswith("extract-client_")}
    assert {name for name, state in extracted.items() if state == "Failed"} == {"extract-client_2"}
    assert len(extracted) == 5
    retry(stack, flow_run, picture="ui_failed_client")
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    new = dict(Counter(stack.task_states(flow_run)) - Counter(before))
    for name in OF_A_CLIENT:
        states = {task: state for task, state in new if task.startswith(name.split("{")[0])}
        assert states == {name.format(n): "Completed" if n == 2 else "Cached" for n in range(5)}
    assert (tmp_path / "metrics.json").is_file()


def test_a_partial_run_is_retried_to_a_whole_one_and_a_damaged_artifact_is_made_again(
    stack: Stack, known: Known, tmp_path: Path
) -> None:
    flow_run, in_the_way = broken_run(stack, known.with_clients(tmp_path, 4, min_clients=3))
    run = stack.wait_for(flow_run)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Partial")
    assert "client_1" in run["state"]["message"]
    retry(stack, flow_run, ui="v2", picture="ui_partial_run")  # too early: it is still in the way
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert run["state_name"] == "Partial"
    in_the_way.rmdir()
    before = stack.task_states(flow_run)
    uploads = stack.store / "objects" / "client_upload"
    damaged = max(uploads.rglob("*.npz"), key=lambda path: path.stat().st_mtime)
    damaged.write_bytes(b"0" * damaged.stat().st_size)
    retry(stack, flow_run, ui="v1", picture="ui_partial_run_v1")
    run = stack.wait_for(flow_run, beyond=run["run_count"])
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed")
    new = Counter(stack.task_states(flow_run)) - Counter(before)
    again = sorted(n for n, s in new if n.startswith(("extract-client_", "coreset-client_")) and s == "Completed")
    assert [name for name in again if name.startswith("extract")] == ["extract-client_1"]
    assert len(again) == 3  # the mended client's coreset, and the one that was damaged
    assert "coreset-client_1-round-1" in again


def test_two_runs_of_one_experiment_at_once_compute_each_step_once(stack: Stack, config: dict[str, Any]) -> None:
    other = {**config, "runtime": {**config["runtime"], "out": config["runtime"]["out"] + "-other"}}
    runs = [stack.run_by_name("federated-experiment/on-demand", c) for c in (config, other)]
    assert [stack.wait_for(run)["state_type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    states = [dict(stack.task_states(run)) for run in runs]
    for number in range(5):
        for name in (name.format(number) for name in OF_A_CLIENT):
            assert sorted(state[name] for state in states) == ["Cached", "Completed"], name
