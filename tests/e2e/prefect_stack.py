"""A Prefect server, work pools, deployments and a worker for tests, on a free port: by hand, or by `make serve`."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
START_SECONDS = 600
KILLED = "Check whether the flow run exceeded its memory allocation"

S = TypeVar("S", bound="Stack")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Stack:
    """A running server with everything deployed; `worker` is the worker's process."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = home / "store"
        self.dataset = home / "dataset"  # what the deployments use that are not told another one
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": "P30D",
            "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
            "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "OMP_NUM_THREADS": "1",
            "FEDPATCH_RETRY_DELAYS": "0.1",
            "FEDPATCH_STORE": str(self.store),
            "FEDPATCH_DATASET": str(self.dataset),
            **environment,
        }

    def start(self) -> None:
        """Start the server, make the pool, deploy, start a worker."""
        self.start_server()
        self.prefect("work-pool", "create", "local", "--type", "process", "--overwrite")
        self.prefect("work-pool", "create", "stations", "--type", "process", "--overwrite")
        self.prefect("deploy", "--all", "--no-prompt")
        self.python("-m", "flows.automations")
        self.start_worker()

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self.server = self._spawn("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self._wait_for(lambda: self.api("/health"), alive=self.server)

    def kill_server(self) -> None:
        """End the server as a power cut does."""
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def start_worker(self) -> None:
        """Start a worker on the pool `local`."""
        self.worker = self._spawn("worker", "worker", "start", "--pool", "local")

    def processes_of_runs(self) -> list[psutil.Process]:
        """What the worker started: the processes of its flow runs."""
        return psutil.Process(self.worker.pid).children(recursive=True)

    def kill_worker(self) -> None:
        """End the worker as the kernel does when memory runs out; its flow runs are left without a parent."""
        self.worker.kill()
        self.worker.wait()

    def stop(self) -> None:
        """End every process that this stack started, with all of its children."""
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def prefect(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command of Prefect's own command line from the repository root."""
        done = subprocess.run(
            [str(BIN / "prefect"), *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"prefect {arguments}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done

    def python(self, *arguments: str, timeout: float = 600) -> str:
        """Run Python from the repository root against this server; returns what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"python {arguments}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done.stdout

    def api(self, path: str, body: Any = None) -> Any:
        """One request to the server: POST with a body, GET without."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return json.loads(self._answer(urllib.request.Request(f"{self.url}/api{path}", data, headers)) or "null")

    def _answer(self, request: urllib.request.Request) -> bytes:
        """What the server answers; "503: database locked, ask again" is asked again, as Prefect's own clients do."""
        if password := self.environment.get("PREFECT_API_AUTH_STRING"):
            request.add_header("Authorization", f"Basic {base64.b64encode(password.encode()).decode()}")
        for pause in (0.2, 0.5, 1.0, 2.0, 4.0, None):
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    content: bytes = answer.read()
                    return content
            except urllib.error.HTTPError as error:
                if error.code != 503 or pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("not reached")

    def run_by_name(self, deployment: str, config: dict[str, Any]) -> str:
        """Trigger a deployment by name; returns the flow run's id."""
        found = self.api(f"/deployments/name/{deployment}")
        made: dict[str, Any] = self.api(
            f"/deployments/{found['id']}/create_flow_run", {"parameters": {"config": config}}
        )
        return str(made["id"])

    def delete(self, path: str) -> None:
        """One DELETE request to the server."""
        self._answer(urllib.request.Request(f"{self.url}/api{path}", method="DELETE"))

    def wait_for_the_workers_report(self, flow_run: str, *, seconds: float = 300) -> None:
        """Wait until the log of a killed run says that its worker has reported it, too.

        Prefect reports a killed run twice: what watches its process makes it Crashed, the worker does so again some
        seconds later, and a retry between the two is overwritten by the second. Then the worker logs what may help.
        """
        query = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_DESC", "limit": 200}
        deadline = time.monotonic() + seconds
        while not any(
            row["name"] == "prefect.flow_runs.worker" and row["message"].startswith(KILLED)
            for row in self.api("/logs/filter", query)
        ):
            assert time.monotonic() < deadline, f"no report of the worker after {seconds} s: {self.logs()}"
            time.sleep(0.5)

    def wait_for(self, flow_run: str, *, beyond: int = 0, seconds: float = 900) -> dict[str, Any]:
        """The flow run once it ended, after more than `beyond` runs of it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run: dict[str, Any] = self.api(f"/flow_runs/{flow_run}")
            final = run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            if final and run["run_count"] > beyond:
                return run
            time.sleep(0.5)
        raise AssertionError(f"flow run {flow_run} has not ended after {seconds} s: {self.logs()}")

    def newest_run(self, *, of: str, besides: set[str], seconds: float = 60) -> str:
        """The id of a run of a deployment that was not there before."""
        deployment = self.api(f"/deployments/name/{of}")
        query = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 200}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            new: list[str] = [r["id"] for r in self.api("/flow_runs/filter", query) if r["id"] not in besides]
            if new:
                return new[0]
            time.sleep(0.5)
        raise AssertionError(f"no new run of {of} after {seconds} s: {self.logs()}")

    def task_states(self, flow_run: str) -> list[tuple[str, str]]:
        """(task run name, state name) of all task runs of a flow run, in the order of their start."""
        rows = self.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200})
        return [(row["name"], row["state_name"]) for row in sorted(rows, key=lambda row: row["expected_start_time"])]

    def logs(self) -> str:
        """The ends of what the processes wrote."""
        return "\n".join(p.read_text(errors="replace")[-1500:] for p in sorted(self.home.glob("*.log")))

    def _spawn(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(BIN / "prefect"), *arguments],
                cwd=ROOT, env={**self.environment, **environment}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def _wait_for(self, ready: Callable[[], Any], *, alive: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):
                if ready():
                    return
            assert alive.poll() is None, f"the server ended: {self.logs()}"
            assert time.monotonic() < deadline, f"the server did not start: {self.logs()}"
            time.sleep(0.5)


class ServedStack(Stack):
    """What `make serve` starts, without a data set of its own, and what its Ctrl-C leaves: nothing."""

    def __init__(self, home: Path, **environment: str) -> None:
        super().__init__(home, **environment)
        del self.environment["FEDPATCH_DATASET"]

    @property
    def said(self) -> str:
        """What the script wrote."""
        return (self.home / "serve.log").read_text(errors="replace")

    def serve(self, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start scripts/serve.sh, as in a terminal of its own."""
        given = {"PATH": f"{BIN}:{os.environ['PATH']}", "FEDPATCH_PORT": str(self.port), **environment}
        with log.open("wb") as out:
            return subprocess.Popen(
                ["sh", "scripts/serve.sh"], cwd=ROOT, stdout=out, stderr=out, start_new_session=True,
                env={**self.environment, **given},
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background
            )  # fmt: skip

    def start(self) -> None:
        """Run the script until it says that a run can start."""
        self.script = self.serve(self.home / "serve.log")
        self._wait_for(lambda: "serve: ready" in self.said, alive=self.script)

    def stop(self) -> None:
        """Press Ctrl-C and see that every process ends."""
        if self.script.poll() is not None:  # it did not start
            return
        script = psutil.Process(self.script.pid)
        family = [script, *script.children(recursive=True)]
        try:
            os.killpg(self.script.pid, signal.SIGINT)
            self.script.wait(60)
            gone, alive = psutil.wait_procs(family, timeout=30)
            assert not alive, [process.cmdline() for process in alive]
            assert len(gone) >= 3  # script, server, worker
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.script.wait()


@contextmanager
def running(stack: S) -> Iterator[S]:
    """A stack that is started with the block and ended with it."""
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
