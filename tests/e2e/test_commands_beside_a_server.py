"""Runs of the command line beside a server that marks silent runs Crashed, and on it: they are not concerned."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.temporary_server import DATABASE
from tests.conftest import ROOT
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e

WINDOW_S = 12  # instead of 90
LONG_RUN = f"""
import sys, time
from flows.cli.temporary_server import temporary_server
with temporary_server() as server:
    from prefect import flow, tags
    server.wait()
    with tags(*sys.argv[1:]):
        print(flow(lambda: time.sleep({4 * WINDOW_S}), name="long")(return_state=True).state_details.flow_run_id)
"""


def start(environment: dict[str, str], *tags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LONG_RUN, *tags],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_run_longer_than_the_window_stays_running(stack: Stack) -> None:
    """One with the server's PREFECT_HOME alone, one on the server, and, to see that the rule is at work, one tagged."""
    stack.python("-m", "flows.automations", str(WINDOW_S))
    alone = {name: value for name, value in stack.environment.items() if name != "PREFECT_API_URL"}
    try:
        runs = [start(alone), start(stack.environment), start(stack.environment, "fedpatch")]
        said = [run.communicate(timeout=400) for run in runs]
    finally:
        stack.python("-m", "flows.automations")
    assert [run.returncode for run in runs] == [0, 0, 0], said
    for _, log in said[:2]:
        assert "Traceback" not in log
        assert "locked" not in log
    ids = [out.strip().splitlines()[-1] for out, _ in said]
    with sqlite3.connect(Path(stack.environment["PREFECT_HOME"]) / DATABASE) as database:
        own = [kind for (kind,) in database.execute("select type from flow_run_state where flow_run_id = ?", (ids[0],))]
    database.close()
    assert "COMPLETED" in own
    assert "CRASHED" not in own
    assert "CRASHED" not in states(stack, ids[1])
    assert "CRASHED" in states(stack, ids[2])


def states(stack: Stack, flow_run: str) -> list[str]:
    """The types of all states that a run was in."""
    return [state["type"] for state in stack.api(f"/flow_run_states/?flow_run_id={flow_run}")]
