"""What of the banks' coverage goes with AUC-sPRO: Spearman's rank correlation over the runs of a benchmark.

`python -m benchmarks.coverage_relation runs/coverage`, of a benchmark with `evaluation.coverage` (one seed). For each
category the runs are ranked by AUC-sPRO@0.05 and by each quantile of `coverage.json`: -1 where the bank that is nearer
always scores higher. Runs share test images, training images and much of their banks, so there is no p-value.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import spearmanr

from data_contracts.results import AUC_SPRO, MetricsDocument

DISTANCES = ("mean", "q50", "q90", "q95", "q99", "covering_radius")


def relation(directory: Path, only: Sequence[str] = ()) -> list[dict[str, str | int | float]]:
    """A row a category: number of runs (`only` these), and the rank correlation with each of DISTANCES."""
    rows = []
    covered = json.loads((directory / "coverage.json").read_text(encoding="utf-8"))
    for category in sorted({row["category"] for row in covered}):
        own = [row for row in covered if row["category"] == category and (not only or row["experiment"] in only)]
        values = [_auc_spro(directory / row["experiment"], category) for row in own]
        row: dict[str, str | int | float] = {"category": category, "runs": len(own)}
        row |= {name: round(float(spearmanr([one[name] for one in own], values)[0]), 2) for name in DISTANCES}
        rows.append(row)
    return rows


def _auc_spro(run: Path, category: str) -> float:
    document = MetricsDocument.model_validate_json((run / "metrics.json").read_text(encoding="utf-8"))
    value = AUC_SPRO.of(document.categories[category])
    if value is None:
        raise SystemExit(f"{run} has no {AUC_SPRO.title} of {category}; it needs masks")
    return value


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage_relation", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="these experiments, such as those with equal banks")
    arguments = parser.parse_args()
    for row in relation(arguments.directory, arguments.only):
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
