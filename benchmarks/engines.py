"""How long the same experiment takes under each task runner.

`python -m benchmarks.engines [--images 24] [--workers 2] [--json FILE]`: made-up images, five clients, a cold store
each time; threads one at a time and in parallel, a process pool, and an existing Dask cluster of as many workers. Whole
processes are timed, with the start of Python and Prefect; ratios are against one thread. Results must be equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.children import run_child
from benchmarks.dask_cluster import dask_cluster
from pipeline_lib.dataset.synthetic.dataset import synthesize_dataset

COMMAND = [sys.executable, "-W", "ignore", "-c", "import sys; from flows.cli import main; sys.exit(main())"]
CONFIG = [
    "model.backbone=efficientnet_lite0", "model.coreset_percentage=0.02", "federated.num_clients=5",
    "federated.mode=federated", "evaluation.bootstrap=0", "preprocessing.small_size=[256, 256]",
    "preprocessing.large_size=[320, 256]", "runtime.threads=1",
]  # fmt: skip


def main() -> None:
    """Run each engine once, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        synthesize_dataset(place / "data", images=a.images, scale=0.5, seed=0)
        (place / "c.yaml").write_text("{}\n", encoding="utf-8")
        with dask_cluster(place / "dask", workers=a.workers) as cluster:
            engines = {
                "threads, 1 at a time": ["runtime.task_runner=threads", "runtime.workers=1"],
                f"threads, {a.workers}": ["runtime.task_runner=threads", f"runtime.workers={a.workers}"],
                f"processes, {a.workers}": ["runtime.task_runner=processes", f"runtime.workers={a.workers}"],
                f"dask, {a.workers} workers that run": [
                    "runtime.task_runner=dask",
                    f"runtime.dask_address={cluster.address}",
                ],
            }
            found = {engine: measure(place, number, keys) for number, (engine, keys) in enumerate(engines.items())}
    first = next(iter(found.values()))
    assert all(row["mean"] == first["mean"] for row in found.values()), "the engines' results differ"
    print("| task runner | time | peak memory, MB |")
    print("|---|---|---|")
    for engine, row in found.items():
        memory = f"{row['peak_mb']:.0f}" if "dask" not in engine else "of the workers, not measured"
        print(f"| {engine} | {row['wall_s'] / first['wall_s']:.2f}x | {memory} |")
    if a.json:
        a.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def measure(place: Path, number: int, keys: list[str]) -> dict[str, object]:
    """One cold run."""
    own = [f"dataset.root={place / 'data'}", f"runtime.store={place / f'store_{number}'}"]
    options = [part for key in [*CONFIG, *own, *keys] for part in ("--set", key)]
    command = [*COMMAND, "run", str(place / "c.yaml"), "--json", "--out", str(place / f"run_{number}"), *options]
    outcome = run_child(command, environment={"PREFECT_HOME": str(place / f"prefect_{number}")})
    return {"wall_s": outcome.wall_s, "peak_mb": outcome.peak_anonymous_mb, "mean": outcome.answer["mean"]}


if __name__ == "__main__":
    main()
