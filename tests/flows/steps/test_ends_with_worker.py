"""A run ends when what holds its standard input does. With real workers: tests/e2e/test_killed.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = """
import os
import threading
from types import SimpleNamespace
from uuid import uuid4
from flows.steps import ends_with_worker

out = os.dup(1)
ends_with_worker._report = lambda flow_run_id: (print("into a broken pipe"), os.write(out, b"reported\\n"))
ends_with_worker.end_with_worker(None, SimpleNamespace(deployment_id={deployment}, id=uuid4()), None)
print("at work", flush=True)
threading.Event().wait({seconds})
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("deployment", "seconds", "said", "code"),
    [("uuid4()", 300, "reported\n", 1), ("None", 0.5, "done\n", 0)],  # a run of a deployment, of the command line
)
def test_a_run_of_a_deployment_says_that_its_worker_ended_and_ends(
    deployment: str, seconds: float, said: str, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(deployment=deployment, seconds=seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    assert process.communicate(timeout=60)[0] == said  # closes its standard input, as the system does for a dead worker
    assert process.returncode == code
