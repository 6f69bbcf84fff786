"""A regression of a watched benchmark reaches a webhook through the automation on a real server."""

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

night()
"""


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
    yield f"http://127.0.0.1:{server.server_port}/regression", posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_regression_is_posted_to_the_webhook(stack: Stack, receiver: tuple[str, Queue[Any]]) -> None:
    url, posted = receiver
    assert "a benchmark regressed" in stack.python("-m", "flows.automations", "--webhook", url)
    names = [rule["name"] for rule in stack.api("/automations/filter", {})]
    assert len(names) == len(set(names)) == 2  # the rule that was there is replaced
    stack.python("-c", EMIT)
    body = posted.get(timeout=120)
    assert body == {
        "benchmark": "nightly",
        "directory": "/runs/x",
        "compared_with": "2026-01-01",
        "regressions": ["iid_3: auc_spro_0.05 -3.00 points [-4.00, -2.00]"],
    }
