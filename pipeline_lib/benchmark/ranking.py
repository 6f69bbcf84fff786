"""A ranking of experiments as far as the data support one: who cannot be told from the best, and who is worse.

Which experiment comes out best is itself chance, so a test against it has to count all pairs: the quantile is that of
the studentized range (Tukey 1953; Kramer 1956 for pairs of unequal variance), divided by the root of 2. The variance
of a pair is that of its difference over draws of images, and that of seeds, for which all experiments stand in
together: what is left of the values (experiment, seed) without the means of both, with (experiments - 1) (seeds - 1)
degrees of freedom. The two are weighted as in `differences`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from pipeline_lib.benchmark.comparison import ExperimentRuns
from pipeline_lib.benchmark.differences import LEVEL, Component, image_component, weighted_quantile
from pipeline_lib.benchmark.paired import ResampledMetrics


def rank(runs: Mapping[str, ExperimentRuns], metric: str) -> list[dict[str, Any]]:
    """Experiments by value, highest first, each against the best: `place` 1 for those that cannot be told from it.

    The others have no place: that they are worse than the best is shown, their order among themselves is not. `ci95`
    is the simultaneous interval of the points from the best. Experiments without the seeds that most of them have are
    left out. Empty for one seed and without resamples.
    """
    by_seeds: Counter[tuple[int, ...]] = Counter(tuple(sorted(own.resampled)) for own in runs.values())
    seeds = max(by_seeds, key=lambda found: (by_seeds[found], len(found)), default=())
    values: dict[str, float] = {}
    for name, own in runs.items():
        if set(seeds) <= set(own.resampled) and (value := own.mean(metric, seeds)) is not None:
            values[name] = value
    if len(seeds) < 2 or not values:
        return []
    order = sorted(values, key=lambda name: -values[name])
    best = order[0]
    rows: list[dict[str, Any]] = [{"experiment": best, "value": values[best], "place": 1, "points": 0.0, "ci95": None}]
    for name in order[1:]:
        difference = values[name] - values[best]
        images = image_component(_of(runs[name], seeds), _of(runs[best], seeds), metric)
        half = None if images is None else _half_width(images, _seed_component(runs, metric, order, seeds), len(order))
        row: dict[str, Any] = {"experiment": name, "value": values[name], "place": 1}
        row |= {"points": round(100 * difference, 4), "ci95": None}
        if half is not None:
            row["ci95"] = [round(100 * (difference + side), 4) for side in (-half, half)]
            row["place"] = None if difference + half < 0 else 1
        rows.append(row)
    return rows


def _of(own: ExperimentRuns, seeds: tuple[int, ...]) -> dict[int, ResampledMetrics]:
    return {seed: own.resampled[seed] for seed in seeds}


def _half_width(images: Component, seeds: Component, n_experiments: int) -> float:
    parts = [images, seeds]
    error = math.sqrt(images.variance + seeds.variance)
    return error and error * weighted_quantile(parts, lambda degrees: _range_quantile(n_experiments, degrees))


def _seed_component(
    runs: Mapping[str, ExperimentRuns], metric: str, names: list[str], seeds: tuple[int, ...]
) -> Component:
    """Of the difference of two experiments."""
    values = np.array([[runs[name].mean(metric, [seed]) for seed in seeds] for name in names], np.float64)
    left = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    degrees = (len(names) - 1) * (len(seeds) - 1)
    return Component(2 * float((left**2).sum()) / degrees / len(seeds), degrees)


@cache
def _range_quantile(n_experiments: int, degrees: float) -> float:
    from scipy import stats  # slow to import, and few commands come here

    return float(stats.studentized_range.ppf(1 - LEVEL, n_experiments, math.floor(degrees))) / math.sqrt(2)
