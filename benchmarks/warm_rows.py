"""A fully cached rerun of an experiment against its cold run, through the command line."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.children import Outcome, run_child
from benchmarks.real_features import cache_directory, data_root
from benchmarks.rows import Row

SHARE = 0.03
SECONDS = 5.0


def warm(*, quick: bool) -> list[Row]:
    """Three real categories, IID over three clients: at most 3 % of the cold run's time, or 5 s.

    Whole processes are timed, with the start of Python and of Prefect's server.
    """
    root = Path(tempfile.mkdtemp(dir=cache_directory()))
    try:
        cold = run_real3(root, "cold", quick=quick)
        times = [run_real3(root, f"warm{n}", quick=quick) for n in range(2 if quick else 3)]
        same = all(_results(root / f"warm{n}") == _results(root / "cold") for n in range(len(times)))
    finally:
        shutil.rmtree(root)
    ratios = sorted(outcome.wall_s / cold.wall_s for outcome in times)
    return [
        Row(
            name="warm",
            peer="its own cold run",
            ratio_median=round(ratios[len(ratios) // 2], 4),
            ratio_min=round(ratios[0], 4),
            repetitions=len(ratios),
            equal_results=same,
            wanted=round(max(SHARE, SECONDS / cold.wall_s), 4),
            direction="at most",
            work=f"configs/real3_iid.yaml{', 12 images a category and split' if quick else ''}",
            figures={"cold_s": round(cold.wall_s, 1), "warm_s": [round(outcome.wall_s, 1) for outcome in times]},
        )
    ]


def run_real3(root: Path, name: str, *settings: str, quick: bool) -> Outcome:
    """configs/real3_iid.yaml with `settings` (key=value) into root/name, with the store root/store.

    quick: 12 images a category and split.
    """
    command = [
        str(Path(sys.executable).with_name("python")), "-c", "import sys; from flows.cli import main; sys.exit(main())",
        "run", "configs/real3_iid.yaml", "--json", "--out", str(root / name),
        "--set", f"dataset.root={data_root()}",
        "--set", f"runtime.store={root / 'store'}",
    ]  # fmt: skip
    for setting in (*settings, *["dataset.max_images=12"] * quick):
        command += ["--set", setting]
    return run_child(command, environment={"PREFECT_HOME": str(root / "prefect")})


def _results(directory: Path) -> dict[str, object]:
    metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    return {key: metrics[key] for key in ("categories", "mean", "federation")}
