"""What a finished benchmark has, as rows, curves and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.results import AUC_SPRO
from pipeline_lib.benchmark.side_by_side import Case

HEADLINE = AUC_SPRO.key
EXEMPLARY = 5
Rows = Sequence[Mapping[str, Any]]
Curves = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]  # category -> experiment -> FPR, sPRO


@dataclass(frozen=True)
class BenchmarkRecord:
    """What a finished benchmark has."""

    config: BenchmarkConfig
    comparisons: Mapping[str, Rows]  # all | development | report -> rows of comparison.json
    clients: Rows  # clients.json
    ranking: Rows  # ranking.json
    failed: Mapping[str, str]
    tabled: Mapping[str, Rows] = field(default_factory=dict)  # as comparisons, of AUC-sPRO@0.3 and pixel AUROC
    categories: Rows = ()  # categories.json
    warnings: Sequence[str] = ()  # warnings.json, with what the validation of the data set says
    validation: Sequence[str] = ()
    weak_spots: Rows = ()  # weak_spots.json
    groups: Rows = ()  # groups.json
    coverage: Rows = ()  # coverage.json; empty unless evaluation.coverage
    curves: Curves = field(default_factory=dict)
    cases: Sequence[Case] = ()
    notes: Sequence[str] = ()  # what the page lacks and why
    timings_s: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds over all runs
    environment: Mapping[str, Any] = field(default_factory=dict)
    finished: str = ""


def of(rows: Rows, metric: str, group: str | None = None) -> list[Mapping[str, Any]]:
    """The rows of one metric, and of one group."""
    return [row for row in rows if row["metric"] == metric and (group is None or row["group"] == group)]


def exemplary(rows: Rows, baseline: str, *, among: set[str], count: int = EXEMPLARY) -> list[str]:
    """The baseline, the experiments with the largest loss and the largest gain, then others in their order."""
    mine = [row for row in of(rows, HEADLINE) if row["experiment"] in among]
    by_delta = sorted((row for row in mine if row["delta_points"] is not None), key=lambda row: row["delta_points"])
    ends = [by_delta[0]["experiment"], by_delta[-1]["experiment"]] if by_delta else []
    names = [baseline, *ends, *(row["experiment"] for row in mine)]
    chosen = [name for name in dict.fromkeys(names) if name in among]
    return chosen[:count]
