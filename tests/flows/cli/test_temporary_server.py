"""The temporary Prefect server of a command: only where none is configured, with all logs, and gone afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    temporary_settings,
)

from data_contracts.errors import ServerError
from flows.cli.temporary_server import DATABASE, temporary_server
from tests.conftest import ROOT

SCRIPT = """
import os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
SHOW = "from prefect.settings import PREFECT_API_URL; print(PREFECT_API_URL.value())"
from flows.cli.temporary_server import temporary_server
with temporary_server() as server:
    from prefect import flow, get_run_logger
    from prefect.settings import PREFECT_API_URL
    server.wait()
    assert PREFECT_API_URL.value() == server.url
    in_a_pool = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True).stdout.strip()
    assert in_a_pool == server.url, in_a_pool
    with ThreadPoolExecutor(1) as threads:  # as the one that forwards a pool's logs: it does not take settings over
        assert threads.submit(PREFECT_API_URL.value).result() == server.url
    flow(lambda: get_run_logger().warning("said at the end"), name="short")()
    child = server.process
assert child.poll() is not None and not PREFECT_API_URL.value() and "PREFECT_API_URL" not in os.environ
"""

WAITING = """
import time
from flows.cli.temporary_server import temporary_server
with temporary_server() as server:
    server.wait()
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


def test_none_is_started_where_an_api_is_configured(prefect_server: None) -> None:
    configured = PREFECT_API_URL.value()
    with temporary_server() as server:
        server.wait()
        assert server.process is None
        assert PREFECT_API_URL.value() == configured


def test_one_that_does_not_come_up_is_an_error_that_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    changes = {PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}
    with (
        temporary_settings(changes, restore_defaults={PREFECT_API_URL}),
        temporary_server() as server,
        pytest.raises(ServerError, match=r"temporary Prefect server ended with 1.*PREFECT_HOME"),
    ):
        server.wait()
    assert server.process is None


def test_none_may_be_started_and_none_is_configured() -> None:
    changes = {PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}
    with (
        temporary_settings(changes, restore_defaults={PREFECT_API_URL}),
        pytest.raises(ServerError, match="PREFECT_SERVER_ALLOW_EPHEMERAL_MODE forbids"),
        temporary_server(),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        assert "uvicorn" in server.cmdline()
        os.kill(parent.pid, how)
        assert parent.wait() == -how
        server.wait(timeout=120)  # returns as soon as it is gone
    assert not server.is_running()


@pytest.mark.slow
def test_the_runs_last_logs_reach_the_server_before_it_ends(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "prefect.db").exists()  # that is for a server that stays
    with sqlite3.connect(tmp_path / DATABASE) as database:
        assert database.execute("select count(*) from log where message = 'said at the end'").fetchone() == (1,)
        assert database.execute("select state_type from flow_run").fetchall() == [("COMPLETED",)]
    database.close()


def test_commands_at_the_same_time_have_databases_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one SQLite file lock each other out, and runs lose their server."""
    urls: list[str] = []

    def record(command: list[str], env: dict[str, str], **_: object) -> subprocess.Popen[bytes]:
        urls.append(env["PREFECT_SERVER_DATABASE_CONNECTION_URL"])
        return started(["sleep", "60"], stdin=subprocess.PIPE)

    started = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", record)
    changes = {PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True, PREFECT_HOME: tmp_path}
    unset = {PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL}
    with temporary_settings(changes, restore_defaults=unset):
        with temporary_server(), temporary_server(), temporary_server():
            pass
        with temporary_server():
            pass
    names = [Path(url).name for url in urls]
    assert names == ["fedpatch.db", "fedpatch-2.db", "fedpatch-3.db", "fedpatch.db"]
