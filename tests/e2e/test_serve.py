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


def test_make_serve_starts_everything_and_ends_all_of_it(tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make
    listed = subprocess.run(
        [make, "-n", "-o", ".venv/.installed", "serve"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "sh scripts/serve.sh" in listed.stdout
    port = free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        "PATH": f"{BIN}:{os.environ['PATH']}", "PREFECT_HOME": str(tmp_path / "prefect"), "FEDPATCH_PORT": str(port),
        "FEDPATCH_STORE": str(tmp_path / "store"),
    }  # fmt: skip
    api = f"http://127.0.0.1:{port}/api"
    with (tmp_path / "log").open("wb") as log:
        served = subprocess.Popen(
            ["sh", "scripts/serve.sh"], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background
        )  # fmt: skip
    try:
        found = wait_for(lambda: ask(f"{api}/work_pools/local/workers/filter", {}), 240)
        assert found, (tmp_path / "log").read_text()[-3000:]
        names = {deployment["name"] for deployment in ask(f"{api}/deployments/filter", {})}
        assert names == {"on-demand", "nightly", "weekly"}  # no stations: they would be "Not Ready" without workers
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
