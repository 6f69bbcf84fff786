"""What starts and ends `make serve`, with stand-ins for Prefect and Python; with real ones: tests/e2e/test_serve.py."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.conftest import ROOT

PREFECT = "#!/bin/sh\nexit 0\n"
PYTHON = """#!/bin/sh
case "$*" in *os.setsid*) echo "$$" >> "$0.processes"; exec /bin/sleep 300 ;; esac
case "$*" in *flows.automations*) echo "nobody is told yet" ;; esac
exit 0
"""
NO_PAUSE = "#!/bin/sh\nexit 0\n"


@contextmanager
def serving(directory: Path, **given: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`make serve` on the stand-ins, once it is ready: make, and the file of what it says."""
    for name, text in (("prefect", PREFECT), ("python", PYTHON), ("sleep", NO_PAUSE)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    (directory / "python.processes").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FEDPATCH_", "PREFECT_"))} | given
    said = directory / "said"
    with said.open("wb") as log:
        make = subprocess.Popen(
            ["make", "-o", ".venv/.installed", "serve", f"BIN={os.path.relpath(directory, ROOT)}"],
            cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "deployment run" in said.read_text(), make, said)
        wait_until(lambda: len(started(directory)) == 2, make, said)  # server and worker
        yield make, said
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()


def wait_until(seen: Callable[[], bool], make: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert make.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)


def started(directory: Path) -> list[psutil.Process]:
    """The processes that stand for the server, the worker and each worker after it, in the order of their forks."""
    found = []
    for pid in sorted(map(int, (directory / "python.processes").read_text().split())):  # each writes when it can
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def test_a_sigterm_to_make_ends_all_and_ready_prints_what_another_terminal_needs(tmp_path: Path) -> None:
    given = {"PREFECT_HOME": str(tmp_path / "a home"), "FEDPATCH_STORE": "/srv/store", "FEDPATCH_PORT": "4399"}
    with serving(tmp_path, **given) as (make, said):
        processes = started(tmp_path)
        make.send_signal(signal.SIGTERM)
        make.wait(30)
        assert not [process for process in processes if process.is_running()]
    assert "Error" not in said.read_text()
    assert "This is for trying" in said.read_text()
    assert "nobody is told yet" in said.read_text()
    (export,) = [line for line in said.read_text().splitlines() if line.startswith("  export ")]
    shown = ["sh", "-c", f"{export.strip()}; echo $PREFECT_API_URL $PREFECT_HOME $FEDPATCH_STORE ${{PATH%%:*}}"]
    seen = subprocess.run(shown, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"})
    *places, path = seen.stdout.rsplit(maxsplit=1)
    assert places == [f"http://127.0.0.1:4399/api {given['PREFECT_HOME']} /srv/store"]
    assert Path(path).samefile(tmp_path)


def test_a_worker_that_ends_is_started_again_beside_the_same_server_but_not_for_ever(tmp_path: Path) -> None:
    with serving(tmp_path, FEDPATCH_PORT="4399") as (make, said):
        server, worker = started(tmp_path)
        for ended in range(1, 5):
            worker.kill()
            before = ended + 1
            wait_until(lambda: len((tmp_path / "python.processes").read_text().split()) > before, make, said)  # noqa: B023
            worker = started(tmp_path)[-1]
            assert server.is_running()
            assert (
                said.read_text().count("the worker ended (exit code 137), and what it ran is Crashed: Retry") == ended
            )
        worker.kill()
        assert make.wait(30) != 0
        assert "the worker ended 5 times" in said.read_text()
        assert not server.is_running()
