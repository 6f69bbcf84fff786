"""`run_deployment` from Python: the result comes back, wrong parameters are refused before a run is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e

RUN = """
import json, sys
from prefect.deployments import run_deployment
run = run_deployment("federated-experiment/on-demand", parameters={"config": json.loads(sys.argv[1])}, timeout=150,
                     poll_interval=1)
print(json.dumps({"state": run.state.name, "result": run.state.result()}))
"""
REFUSED = """
import json, sys
from prefect.deployments import run_deployment
try:
    run_deployment("federated-experiment/on-demand", parameters={"config": json.loads(sys.argv[1])}, timeout=0)
except Exception as error:
    print(error)
"""


def test_run_deployment_returns_the_result(stack: Stack, config: dict[str, Any]) -> None:
    answer = json.loads(stack.python("-c", RUN, json.dumps(config)).splitlines()[-1])
    assert answer["state"] == "Completed"
    result = json.loads(answer["result"])
    assert result["run_directory"] == config["runtime"]["out"]
    assert (Path(result["run_directory"]) / "metrics.json").is_file()
    assert result["failed_clients"] == {}


def test_run_deployment_refuses_wrong_parameters_before_a_run_is_made(stack: Stack, config: dict[str, Any]) -> None:
    before = stack.api("/flow_runs/count", {})
    wrong = {**config, "federated": {**config["federated"], "num_clients": 0}}
    assert "num_clients" in stack.python("-c", REFUSED, json.dumps(wrong))
    assert stack.api("/flow_runs/count", {}) == before
