"""What Prefect, manifests and hashing add to a run, as shares of its time.

`python -m benchmarks.overhead [--json FILE]`, on the tiles in FEDPATCH_REAL_DATA: IID over three clients with a cold
store, then the same again with everything cached. A child runs the command line with the bodies of all tasks timed, and
the artifact store's calls in the tasks' own threads. Outside the tasks are Python, imports, Prefect's server,
orchestration and looking for cached results; what of that runs beside a task is not counted. Time in the store is
hashing, manifests, and the reading and writing of what is hashed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.children import run_child
from benchmarks.real_features import cache_directory, data_root

STORE_CALLS = ("write_bytes", "read_bytes", "verify", "remember", "recall")
RUN = "import sys; from benchmarks.overhead import child; sys.exit(child())"


def main() -> None:
    """Run cold and cached, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=cache_directory()) as name:
        found = {run: measure(Path(name), run) for run in ("cold", "cached")}
    print("| run | start to first task | outside tasks, in all | store calls, share of the tasks' time | seconds |")
    print("|---|---|---|---|---|")
    for run, shares in found.items():
        columns = [f"{shares[key]:.1%}" for key in ("start", "outside", "store")]
        print(f"| {run} | {' | '.join(columns)} | {shares['wall_s']:.1f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def measure(place: Path, run: str) -> dict[str, float]:
    """Shares of one run; seconds as `wall_s`."""
    command = [
        sys.executable, "-W", "ignore", "-c", RUN,
        "run", "configs/real3_iid.yaml", "--json", "--out", str(place / run),
        "--set", f"dataset.root={data_root()}", "--set", "dataset.categories=[magnetic_tile]",
        "--set", f"runtime.store={place / 'store'}",
    ]  # fmt: skip
    times = place / f"{run}.json"
    outcome = run_child(command, environment={"PREFECT_HOME": str(place / "prefect"), "OVERHEAD_TIMES": str(times)})
    seen = json.loads(times.read_text(encoding="utf-8"))
    busy, bodies = covered(seen["tasks"]), sum(stop - start for start, stop in seen["tasks"])
    return {
        "start": min(start for start, _ in seen["tasks"]) / outcome.wall_s,
        "outside": 1 - busy / outcome.wall_s,
        "store": seen["store_s"] / bodies,
        "wall_s": outcome.wall_s,
    }


def covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, end = 0.0, -1.0
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def child() -> int:
    """The command line with its tasks and its store timed; writes what it saw to $OVERHEAD_TIMES."""
    watch = _Watch(psutil.Process().create_time())
    from prefect import task_engine  # imports are part of what is measured

    from pipeline_lib.storage.artifact_store import ArtifactStore

    task_engine.call_with_parameters = watch.task(task_engine.call_with_parameters)
    for name in STORE_CALLS:
        setattr(ArtifactStore, name, watch.store_call(getattr(ArtifactStore, name)))
    from flows.cli import main as command_line

    try:
        return command_line()
    finally:
        Path(os.environ["OVERHEAD_TIMES"]).write_text(
            json.dumps({"tasks": watch.tasks, "store_s": watch.store_s}), encoding="utf-8"
        )


class _Watch:
    """When tasks ran, in seconds since the process began, and how long store calls within them took."""

    def __init__(self, begun: float) -> None:
        self.offset = time.time() - begun - time.perf_counter()
        self.tasks: list[tuple[float, float]] = []
        self.store_s = 0.0
        self._lock = threading.Lock()
        self._local = threading.local()

    def task(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            self._local.in_task = True
            try:
                return function(*arguments, **named)
            finally:
                self._local.in_task = False
                with self._lock:
                    self.tasks.append((start + self.offset, time.perf_counter() + self.offset))

        return timed

    def store_call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            outermost = getattr(self._local, "in_task", False) and not getattr(self._local, "in_store", False)
            if not outermost:
                return function(*arguments, **named)
            start, self._local.in_store = time.perf_counter(), True
            try:
                return function(*arguments, **named)
            finally:
                self._local.in_store = False
                with self._lock:
                    self.store_s += time.perf_counter() - start

        return timed


if __name__ == "__main__":
    main()
