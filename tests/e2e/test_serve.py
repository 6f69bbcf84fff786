"""`make serve`: from one command to a server with everything deployed and a worker, and nothing left after Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.e2e.prefect_stack import BIN, free_port

pytestmark = pytest.mark.e2e


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def wait_for(condition: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(1)
    return False


def serve(port: int, home: Path, log: Path) -> subprocess.Popen[bytes]:
    """What `make serve` does, in a terminal of its own, without a data set."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FEDPATCH_"))},
        "PATH": f"{BIN}:{os.environ['PATH']}", "PREFECT_HOME": str(home / "prefect"), "FEDPATCH_PORT": str(port),
        "FEDPATCH_STORE": str(home / "store"),
    }  # fmt: skip
    with log.open("wb") as out:
        return subprocess.Popen(
            ["sh", "scripts/serve.sh"], cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background
        )  # fmt: skip


def test_make_serve_starts_everything_says_what_to_do_and_ends_all_of_it(tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make
    listed = subprocess.run(
        [make, "-n", "-o", ".venv/.installed", "serve"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "sh scripts/serve.sh" in listed.stdout
    port, log, had_made = free_port(), tmp_path / "log", (ROOT / "made").exists()
    api = f"http://127.0.0.1:{port}/api"
    served = serve(port, tmp_path, log)
    try:
        assert wait_for(lambda: "full-benchmark/nightly will fail" in log.read_text(), 30)
        assert wait_for(lambda: "serve: ready. UI: http://127.0.0.1" in log.read_text(), 400), log.read_text()[-3000:]
        (worker,) = ask(f"{api}/work_pools/local/workers/filter", {})
        assert worker["status"] == "ONLINE"
        names = {deployment["name"] for deployment in ask(f"{api}/deployments/filter", {})}
        assert {"on-demand", "nightly", "weekly"} <= names

        second = serve(port, tmp_path, tmp_path / "second")
        assert second.wait(60) == 1
        assert f"port {port} is in use" in (tmp_path / "second").read_text()

        said = log.read_text().partition("In another terminal:")[2]
        printed = [line for line in said.splitlines() if line.startswith("  ")]
        assert "export PREFECT_API_URL" in printed[0]
        new = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "new"), "LANG": "C.UTF-8"}
        done = subprocess.run(
            ["bash", "-euc", "\n".join(printed)],
            cwd=tmp_path, env=new, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{printed} {done.stdout[-2000:]} {done.stderr[-2000:]} {log.read_text()[-3000:]}"

        family = [psutil.Process(served.pid), *psutil.Process(served.pid).children(recursive=True)]
        os.killpg(served.pid, signal.SIGINT)  # what Ctrl-C sends
        served.wait(60)
        gone, alive = psutil.wait_procs(family, timeout=30)
        assert not alive, [process.cmdline() for process in alive]
        assert len(gone) >= 3
    finally:
        for process in psutil.Process(served.pid).children(recursive=True) if served.poll() is None else ():
            process.kill()
        if served.poll() is None:
            served.kill()
            served.wait()
        if not had_made:
            shutil.rmtree(ROOT / "made", ignore_errors=True)
