"""What goes wrong in a run of a deployment, and a regression, reach a webhook through automations on a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import pytest

from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e

EMIT = """
from prefect import flow
from data_contracts.history import HistoryEntry, Regression
from flows.benchmark import announce

@flow
def night():
    found = Regression(experiment="iid_3", metric="auc_spro_0.05", delta_points=-3.0, ci95=(-4.0, -2.0))
    announce("nightly", HistoryEntry(name="nightly", config_hash="h", finished="2026-01-02", directory="/runs/x",
        state="regressed", compared_with="2026-01-01", regressions=(found,)))
    raise ValueError("a run of the command line, of which nobody is told")

night(return_state=True)
"""
NIGHTLY = "full-benchmark/nightly"
FAR = "2099-01-01T02:00:00Z"


@pytest.fixture
def receiver() -> Iterator[tuple[str, Queue[Any]]]:
    """An address on loopback, and what was posted to it."""
    posted: Queue[Any] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/fedpatch", posted
    server.shutdown()
    thread.join()
    server.server_close()


def planned(guarded: Stack, deployment: str, parameters: dict[str, Any], **state: Any) -> str:
    """A run of a deployment in a scheduled state."""
    path = f"/deployments/{guarded.api(f'/deployments/name/{deployment}')['id']}/create_flow_run"
    return str(guarded.api(path, {"parameters": parameters, "state": {"type": "SCHEDULED", **state}})["id"])


def test_what_goes_wrong_is_posted_to_the_webhook(guarded: Stack, receiver: tuple[str, Queue[Any]]) -> None:
    url, posted = receiver
    assert "a benchmark regressed" in guarded.python("-m", "flows.automations", "--webhook", url)
    names = [rule["name"] for rule in guarded.api("/automations/filter", {})]
    assert len(names) == len(set(names)) == 4  # the rule that was there is replaced
    late = planned(guarded, "station-client/station-a", {"config": {}, "run_id": "none"})  # whose worker is not there
    guarded.python("-c", EMIT)
    regression, said = sorted((posted.get(timeout=120) for _ in range(2)), key=lambda body: "benchmark" not in body)
    assert regression == {
        "text": "nightly regressed: iid_3: auc_spro_0.05 -3.00 points [-4.00, -2.00]",
        "benchmark": "nightly",
        "directory": "/runs/x",
        "compared_with": "2026-01-01",
        "regressions": ["iid_3: auc_spro_0.05 -3.00 points [-4.00, -2.00]"],
    }
    assert (said["deployment"], said["state"]) == ("station-client/station-a", "Late")
    guarded.delete(f"/flow_runs/{late}")
    for kind, name, message in (
        ("FAILED", "Failed", "1 of 3 experiments failed"),
        ("FAILED", "Partial", 'without client_2: "a.png" has changed'),
        ("CRASHED", "Crashed", "Nothing was heard of this run"),
    ):
        run = planned(guarded, NIGHTLY, {}, state_details={"scheduled_time": FAR})
        state = {"type": kind, "name": name, "message": message}
        assert guarded.api(f"/flow_runs/{run}/set_state", {"state": state, "force": True})["status"] == "ACCEPT"
        said = posted.get(timeout=120)
        assert {key: said[key] for key in ("deployment", "state", "message")} == {
            "deployment": NIGHTLY,
            "state": name,
            "message": message,
        }
        assert said["url"].endswith(f"/runs/flow-run/{run}")
        assert said["text"].startswith(f"{NIGHTLY} is {name}: {message} http")
        guarded.delete(f"/flow_runs/{run}")
    assert posted.empty()
