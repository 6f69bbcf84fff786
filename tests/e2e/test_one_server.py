"""docs/operations.md, "One server, without stations": its commands, and what the units start with their variables.

Without systemd, and as the user of the tests; what is written outside the units' directories is looked for.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.dataset_fixtures import write_tiny_autovi
from tests.docs.documented_commands import FENCE
from tests.e2e.prefect_stack import BIN, Stack, running

pytestmark = pytest.mark.e2e

WEBHOOK = "https://hooks.example.org/fedpatch"
AS_USER = "setpriv --reuid fedpatch-worker --regid fedpatch-worker --init-groups \\\n    env"


class OneServer(Stack):
    """A server and a worker as deploy/ starts them, below a directory in the place of /."""

    def start(self) -> None:
        """What the first block of the docs does."""
        (self.home / "etc/fedpatch").mkdir(parents=True)
        for unit in ("server", "worker"):
            (self.home / f"var/lib/fedpatch-{unit}").mkdir(parents=True)
        password = self.environment["PREFECT_API_AUTH_STRING"]
        (self.home / "etc/fedpatch/server.env").write_text(f"PREFECT_SERVER_API_AUTH_STRING={password}\n")
        (self.home / "etc/fedpatch/worker.env").write_text(
            f"PREFECT_API_URL={self.url}/api\nPREFECT_API_AUTH_STRING={password}\nFEDPATCH_DATASET={self.dataset}\n"
        )
        self._wait_for(lambda: self.api("/health"), alive=self.start_unit("server"))

    def placed(self, text: str) -> str:
        """A text of deploy/ or of the docs with this test's port and places, as this user."""
        for there, here in (
            ("4200", self.port),
            (AS_USER, "env"),
            ("/etc/fedpatch", f"{self.home}/etc/fedpatch"),
            ("/var/lib", f"{self.home}/var/lib"),
            ("/opt/fedpatch/.venv/bin", BIN),
            ("/opt/fedpatch", ROOT),
        ):
            text = text.replace(there, str(here))
        return text

    def start_unit(self, name: str) -> subprocess.Popen[bytes]:
        """ExecStart of a unit with its variables, in its directory."""
        text = self.placed((ROOT / "deploy" / f"fedpatch-{name}.service").read_text())
        lines = [line.partition("=")[::2] for line in text.splitlines() if not line.startswith("#")]
        unit = dict(lines)
        given = [word for key, value in lines if key == "Environment" for word in shlex.split(value)]
        given += Path(unit["EnvironmentFile"]).read_text().split()
        home = self.home / "var/lib" / unit["StateDirectory"]
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                shlex.split(unit["ExecStart"]), cwd=unit.get("WorkingDirectory", "/"),
                env=variables | dict(word.split("=", 1) for word in given),
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OneServer]:
    """The server's unit, running; the worker's is not yet."""
    made = OneServer(tmp_path, PREFECT_API_AUTH_STRING="fedpatch:secret")
    write_tiny_autovi(made.dataset, train=6, good=2, defective=1, seed=5)
    with running(made):
        yield made


class _Receiver(BaseHTTPRequestHandler):
    posted: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_documented_server_runs_the_nightly_benchmark(server: OneServer) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page[page.index("### One server, without stations") :]
    _, as_worker, first_night = (body for _, body in FENCE.findall(section)[:3])
    function = as_worker[: as_worker.index("\n)\n") + 3]
    assert WEBHOOK in as_worker
    assert AS_USER in function

    def run(commands: str) -> str:
        done = subprocess.run(
            ["sh", "-euc", server.placed(commands)], cwd="/", capture_output=True, text=True, timeout=900, check=False,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + server.logs()
        return done.stdout

    receiver = HTTPServer(("127.0.0.1", 0), _Receiver)
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    try:
        said = run(as_worker.replace(WEBHOOK, f"http://127.0.0.1:{receiver.server_port}/"))
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()
    assert "a test was sent; the address answered 204" in said
    assert ["nothing is wrong" in text for text in _Receiver.posted] == [True]
    worker = server.start_unit("worker")
    said = run(first_night.replace("systemctl enable --now fedpatch-worker", function))
    assert worker.poll() is None
    (run_id,) = set(re.findall(r"flow-run/([0-9a-f-]{36})", said))
    state = server.api(f"/flow_runs/{run_id}")["state"]
    assert state["type"] == "COMPLETED"
    assert "centralized" in state["message"]
    own = server.home / "var/lib/fedpatch-worker"
    (night,) = (own / "runs").glob("nightly-2*")
    assert (night / "benchmark.html").is_file()
    assert (own / "runs/nightly-history/history.html").is_file()
    assert (own / "store").is_dir()
    run(f"{function}\nas_worker prefect flow-run retry {run_id}")
    assert server.wait_for(run_id, beyond=1)["state_type"] == "COMPLETED"
