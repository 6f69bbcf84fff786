"""A process of the pool is killed, as the kernel does when memory runs out: one clear line, and a rerun goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import ROOT, experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.process_fixtures import features_of_first_client

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "run"]


def test_a_killed_worker_process_is_one_clear_line_and_nothing_finished_is_lost(tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "data", train=60, good=2, defective=1, size=(640, 480))
    values = experiment_values(
        root,
        tmp_path / "store",
        tmp_path / "run",
        preprocessing={"small_size": [320, 320]},
        federated={"num_clients": 5, "partitioning": "time", "min_clients": 5},
        runtime={"workers": 1, "task_runner": "processes"},
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    command = [*COMMAND, str(tmp_path / "c.yaml")]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    with (tmp_path / "err").open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=errors, stderr=errors)
    features = features_of_first_client(process, tmp_path / "store", log=tmp_path / "err")
    for child in psutil.Process(process.pid).children(recursive=True):
        if "--multiprocessing-fork" in child.cmdline():
            child.kill()
    assert process.wait(240) == 1
    assert "a worker process was killed" in (tmp_path / "err").read_text().splitlines()[-1]
    finished = {path: path.stat().st_ino for path in features.rglob("*.parquet")}
    assert 1 <= len(finished) < 5
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert {path: path.stat().st_ino for path in finished} == finished
    assert (tmp_path / "run" / "metrics.json").is_file()
