"""What a finished benchmark has, as rows, curves and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_contracts.benchmark import BenchmarkConfig
from pipeline_lib.benchmark.side_by_side import Case

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
    weak_spots: Rows = ()  # weak_spots.json
    groups: Rows = ()  # groups.json
    coverage: Rows = ()  # coverage.json; empty unless evaluation.coverage
    curves: Curves = field(default_factory=dict)
    cases: Sequence[Case] = ()
    notes: Sequence[str] = ()  # what the page lacks and why
    timings_s: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds over all runs
    environment: Mapping[str, Any] = field(default_factory=dict)
    finished: str = ""
