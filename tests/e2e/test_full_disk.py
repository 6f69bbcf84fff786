"""A full disk ends with one clear line and leaves nothing half-written; with room again, the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, experiment_values
from tests.dataset_fixtures import write_tiny_autovi

pytestmark = pytest.mark.e2e


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_one_clear_line_and_nothing_half_written(small_disk: Path, tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "data", train=40, good=4, defective=2)
    values = experiment_values(root, small_disk / "store", tmp_path / "run", federated={"mode": "centralized"})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", str(tmp_path / "c.yaml")]

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    refused = run()
    assert refused.returncode == 1
    assert "the run would not fit" in refused.stderr
    assert "1.0 MB are free" in refused.stderr
    assert not list(small_disk.rglob("*.parquet"))
    full = run("--force")
    assert full.returncode == 1
    assert "No space left on device" in full.stderr.strip().splitlines()[-1]
    assert not list(small_disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = run()
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["categories"]
