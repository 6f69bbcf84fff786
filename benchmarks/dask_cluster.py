"""A Dask scheduler and two workers as processes of their own, on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass
class Cluster:
    """Where the scheduler listens, and the workers' processes."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def dask_cluster(directory: Path, *, workers: int = 2) -> Iterator[Cluster]:
    """One thread a worker, no nanny: a worker that is killed stays away. Ready when all workers are registered."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(directory / "prefect")}

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (directory / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
                cwd=ROOT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    processes = [
        start("scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
              "--scheduler-file", str(file))
    ]  # fmt: skip
    try:
        processes += [
            start(f"worker_{i}", "dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny",
                  "--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(directory / f"scratch_{i}"))
            for i in range(workers)
        ]  # fmt: skip
        deadline = time.monotonic() + 120
        while not all(b"Registered to" in (directory / f"worker_{i}.log").read_bytes() for i in range(workers)):
            assert time.monotonic() < deadline, (directory / "worker_0.log").read_text()[-2000:]
            time.sleep(0.2)
        yield Cluster(json.loads(file.read_text())["address"], processes[1:])
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
