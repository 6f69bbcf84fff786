"""Prefect's temporary server, started while the command still imports what it needs.

Prefect starts one by itself where no API is configured, but only when a flow begins, waits for it, and imports the
server's modules into this process too. Here the same server starts at once, and this process talks to it as to any
other. It has a database of its own, which no other command's server uses at the same time: two servers on one SQLite
file lock each other out, and the rules of a server that stays (flows/automations.py) are not for a command's runs. It
ends with this process, however that ends.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import prefect
from prefect.context import refresh_global_settings_context
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from data_contracts.errors import ServerError
from flows.connection import leave_loopback_out_of_proxies, refuse_silent_server
from pipeline_lib.storage.file_lock import try_lock_file
from pipeline_lib.storage.writable import refuse_unwritable

DATABASE = "fedpatch.db"  # in PREFECT_HOME, beside a server's prefect.db
POLL_SECONDS = 0.05
STOP_SECONDS = 5.0


class TemporaryServer:
    """A Prefect server as a child process; nothing where an API is configured.

    Raises ServerError where the configured one does not answer, or no server may be started; PlaceError where
    PREFECT_HOME cannot be written.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._settings = ExitStack()
        self._database_lock: int | None = None
        refuse_unwritable({"PREFECT_HOME": get_current_settings().home})  # results lie there, with any server
        leave_loopback_out_of_proxies()
        refuse_silent_server()
        if not PREFECT_API_URL.value():
            self._start()

    def wait(self) -> None:
        """Until the server answers; from then on Prefect uses it. Raises ServerError when it does not come up."""
        if self.process is None:
            return
        deadline = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        with httpx.Client(trust_env=False) as client:
            while self.process.poll() is None and time.monotonic() < deadline:
                try:
                    if client.get(f"{self.url}/health").status_code == httpx.codes.OK:
                        self._settings.enter_context(temporary_settings({PREFECT_API_URL: self.url}))
                        self._settings.enter_context(_for_threads_and_children(self.url))
                        return
                except httpx.TransportError:
                    pass
                time.sleep(POLL_SECONDS)
        status = self.process.poll()
        self.stop()
        raise ServerError(
            f"the temporary Prefect server {'did not answer in time' if status is None else f'ended with {status}'}, "
            f"see above what it said; its files are in PREFECT_HOME ({get_current_settings().home}); make serve starts "
            "one that stays, for PREFECT_API_URL"
        )

    def stop(self) -> None:
        """End the server, after it got the logs and events that are under way; the settings are as before."""
        if self.process is None:
            return
        if self.process.poll() is None:
            for worker in (APILogWorker, EventsWorker):
                worker.drain_all(timeout=STOP_SECONDS)
        self._settings.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None
        if self._database_lock is not None:
            os.close(self._database_lock)
            self._database_lock = None

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        command = [
            sys.executable, "-P", str(Path(__file__).with_name("ends_with_parent.py")),
            "uvicorn", "--app-dir", str(prefect.__module_path__.parent),
            "--factory", "prefect.server.api.server:create_app",
            "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on",
        ]  # fmt: skip
        ephemeral = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        settings = get_current_settings()
        if not settings.server.database.model_fields_set & {"connection_url", "driver"}:
            path, self._database_lock = _free_database(settings.home)
            ephemeral["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{path}"
        given = settings.to_environment_variables(exclude_unset=True)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **ephemeral, **given})


def _free_database(home: Path) -> tuple[Path, int]:
    """fedpatch.db, or fedpatch-2.db and so on where other commands run, and the descriptor that holds its lock."""
    for number in itertools.count(1):
        path = home / (DATABASE if number == 1 else f"fedpatch-{number}.db")
        if (lock := try_lock_file(path.with_suffix(".lock"))) is not None:
            return path, lock
    raise AssertionError("unreachable")


@contextmanager
def _for_threads_and_children(api_url: str) -> Iterator[None]:
    """The server for threads and processes that do not take this thread's settings over.

    The thread that forwards the logs and events of a pool's processes would start a server of its own, and leave it
    behind.
    """
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = api_url
    refresh_global_settings_context()
    try:
        yield
    finally:
        del os.environ["PREFECT_API_URL"]
        if before is not None:
            os.environ["PREFECT_API_URL"] = before
        refresh_global_settings_context()


@contextmanager
def temporary_server() -> Iterator[TemporaryServer]:
    """A server that starts now; call `wait` before the first flow. It ends with the block."""
    server = TemporaryServer()
    try:
        yield server
    finally:
        server.stop()
