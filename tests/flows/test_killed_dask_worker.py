"""One of two Dask workers is killed in the middle of a run: the other one finishes it, and nothing finished is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.dask_cluster import dask_cluster
from tests.conftest import ROOT, experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.process_fixtures import features_of_first_client

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "run"]


def test_a_run_on_a_dask_cluster_survives_one_of_its_workers(tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "data", categories=("pipe_clip",), train=50, good=3, defective=2)
    with dask_cluster(tmp_path / "dask") as cluster:
        values = experiment_values(
            root,
            tmp_path / "store",
            tmp_path / "run",
            preprocessing={"small_size": [256, 256]},
            federated={"num_clients": 5, "partitioning": "time", "min_clients": 5},
            runtime={"task_runner": "dask", "dask_address": cluster.address},
        )
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, str(tmp_path / "c.yaml")],
                cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")},
            )  # fmt: skip
        try:
            features = features_of_first_client(process, tmp_path / "store", log=tmp_path / "log")
            finished = {path: path.stat().st_ino for path in features.rglob("*.parquet")}
            assert len(finished) < 5
            cluster.workers[0].kill()
            assert process.wait(400) == 0, (tmp_path / "log").read_text()[-3000:]
        finally:
            process.kill()
            process.wait()
        assert cluster.workers[1].poll() is None
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert {path: path.stat().st_ino for path in finished} == finished
