"""What starts and ends `make serve`, with stand-ins for Prefect and Python; with real ones: tests/e2e/test_serve.py."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

from tests.conftest import ROOT

PREFECT = "#!/bin/sh\nexit 0\n"
PYTHON = """#!/bin/sh
case "$*" in *os.setsid*) echo "$$" >> "$0.processes"; exec sleep 300 ;; esac
exit 0
"""


def test_a_sigterm_to_make_ends_all_and_ready_prints_what_another_terminal_needs(tmp_path: Path) -> None:
    for name, text in (("prefect", PREFECT), ("python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    given = {"PREFECT_HOME": str(tmp_path / "a home"), "FEDPATCH_STORE": "/srv/store", "FEDPATCH_PORT": "4399"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FEDPATCH_", "PREFECT_"))} | given
    said = tmp_path / "said"
    with said.open("wb") as log:
        make = subprocess.Popen(
            ["make", "-o", ".venv/.installed", "serve", f"BIN={os.path.relpath(tmp_path, ROOT)}"],
            cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "deployment run" not in said.read_text():
            assert make.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)
        processes = [psutil.Process(int(pid)) for pid in (tmp_path / "python.processes").read_text().split()]
        assert len(processes) == 2  # server and worker
        make.send_signal(signal.SIGTERM)
        make.wait(30)
        assert not [process for process in processes if process.is_running()]
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
    (export,) = [line for line in said.read_text().splitlines() if line.startswith("  export ")]
    shown = ["sh", "-c", f"{export.strip()}; echo $PREFECT_API_URL $PREFECT_HOME $FEDPATCH_STORE ${{PATH%%:*}}"]
    seen = subprocess.run(shown, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"})
    *places, path = seen.stdout.rsplit(maxsplit=1)
    assert places == [f"http://127.0.0.1:4399/api {given['PREFECT_HOME']} /srv/store"]
    assert Path(path).samefile(tmp_path)
