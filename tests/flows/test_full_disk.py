"""A full disk ends with one clear line and leaves nothing half-written; with room again, the run goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi

pytestmark = pytest.mark.slow


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


@pytest.mark.usefixtures("prefect_server")
def test_a_full_disk_is_one_clear_line_and_nothing_half_written(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiny_autovi(tmp_path / "data", train=40, good=4, defective=2)
    values = experiment_values(root, small_disk / "store", tmp_path / "run", federated={"mode": "centralized"})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))

    def run(*options: str) -> tuple[int, str]:
        """Exit status and last line of `fedpatch run`."""
        status = 0
        try:
            main(["run", str(tmp_path / "c.yaml"), *options])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, capsys.readouterr().err.strip().rpartition("\n")[2]

    status, line = run()
    assert status == 1
    assert "the run would not fit" in line
    assert "1.0 MB are free" in line
    assert not list(small_disk.rglob("*.parquet"))
    status, line = run("--force")
    assert status == 1
    assert "No space left on device" in line
    assert not list(small_disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    status, line = run()
    assert status == 0, line
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["categories"]
