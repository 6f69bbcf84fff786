"""What `make serve` says and refuses. That it starts all and leaves nothing: the fixture `stack` of all others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.prefect_stack import ServedStack, free_port

pytestmark = pytest.mark.e2e


def test_make_serve_says_what_is_missing_and_what_to_run(stack: ServedStack, tmp_path: Path) -> None:
    """The printed commands in a terminal that knows nothing, offline."""
    before, _, after = stack.said.partition("serve: ready. UI: http://127.0.0.1")
    assert "full-benchmark/nightly will fail" in before
    (worker,) = stack.api("/work_pools/local/workers/filter", {})
    assert worker["status"] == "ONLINE"
    names = {deployment["name"] for deployment in stack.api("/deployments/filter", {})}
    assert names == {"on-demand", "nightly", "weekly"}  # no stations: they would be "Not Ready" without workers

    commands = ("  export ", "  fedpatch ", "  prefect ")  # what else comes is of the server, which goes on speaking
    printed = [line for line in after.splitlines() if line.startswith(commands)]
    assert "export PREFECT_API_URL" in printed[0]
    terminal = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "new"), "LANG": "C.UTF-8",
    }  # fmt: skip
    made = ROOT / "made"
    was_there = made.exists()
    try:
        done = subprocess.run(
            ["bash", "-euc", "\n".join(printed)],
            cwd=tmp_path, env=terminal, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    finally:
        if not was_there:
            shutil.rmtree(made, ignore_errors=True)
    assert done.returncode == 0, f"{printed} {done.stdout[-2000:]} {done.stderr[-2000:]} {stack.logs()}"


def test_make_serve_stops_on_a_port_in_use_and_without_the_data_set_that_it_is_given(
    stack: ServedStack, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere")
    for environment, refusal in (
        ({}, f"port {stack.port} is in use"),
        ({"FEDPATCH_PORT": str(free_port()), "FEDPATCH_DATASET": nowhere}, f"{nowhere}, which is no directory"),
    ):
        assert stack.serve(tmp_path / "log", **environment).wait(120) == 1
        assert refusal in (tmp_path / "log").read_text()
