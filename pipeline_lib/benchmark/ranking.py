"""A ranking of experiments as far as the data support one: who cannot be told from the best, and who is worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.benchmark.comparison import LEVEL, ExperimentRuns
from pipeline_lib.benchmark.paired import holm, paired_difference


def rank(runs: Mapping[str, ExperimentRuns], metric: str, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Experiments by value, highest first, each against the best: `place` 1 for those that cannot be told from it.

    The others have no place: that they are worse than the best is shown, their order among themselves is not. Empty
    without resamples.
    """
    values = {name: value for name, own in runs.items() if (value := own.mean(metric)) is not None}
    if not values or not resamples:
        return []
    order = sorted(values, key=lambda name: -values[name])
    best = order[0]
    against = {
        name: paired_difference(runs[name].resampled, runs[best].resampled, metric, resamples=resamples, seed=seed)
        for name in order[1:]
    }
    adjusted = holm({name: found.p_value if found else None for name, found in against.items()})
    rows: list[dict[str, Any]] = [
        {"experiment": best, "value": values[best], "place": 1, "points": 0.0, "p_holm": None}
    ]
    for name in order[1:]:
        p = adjusted[name]
        rows.append(
            {
                "experiment": name,
                "value": values[name],
                "place": None if p is not None and p < LEVEL else 1,
                "points": round(100 * (values[name] - values[best]), 4),
                "p_holm": p,
            }
        )
    return rows
