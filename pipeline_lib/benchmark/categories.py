"""Experiments by category: the mean over seeds, how far the seeds lie apart, and the difference to the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_contracts.results import TABLED, UNMARKED_AUROC, Metric, MetricsDocument
from pipeline_lib.benchmark.comparison import ExperimentRuns
from pipeline_lib.benchmark.differences import NO_RESAMPLES, Difference, paired_difference
from pipeline_lib.benchmark.paired import ResampledMetrics
from pipeline_lib.storage.files import safe_name

MEAN = "mean of categories"
VALUES = ("value_per_cent", "lowest_per_cent", "highest_per_cent")
METRICS = (*TABLED, UNMARKED_AUROC)


def category_rows(runs: Mapping[str, ExperimentRuns], baselines: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row an experiment, category (and `MEAN`) and metric; the keys of `categories.json`.

    All in per cent and points: mean, lowest and highest of the seeds, `delta_points` to the baseline over the seeds
    that both have with the ends `ci95_low` and `ci95_high`, paired as in `comparison`; each interval for itself, no
    correction counts them. null where a metric is undefined, or an interval is not known (one seed, pixel AUROC).
    """
    rows = []
    for name, own in runs.items():
        other = None if name == baselines[name] else runs.get(baselines[name])
        for category in [*_categories(own), MEAN]:
            for metric in METRICS:
                row = {"experiment": name, "baseline": baselines[name], "category": category, "metric": metric.key}
                rows.append(row | _values(own, category, metric) | _difference(own, other, category, metric))
    return rows


def _categories(own: ExperimentRuns) -> list[str]:
    return list(dict.fromkeys(name for document in own.documents.values() for name in document.categories))


def _of(document: MetricsDocument, category: str, metric: Metric) -> float | None:
    values = document.mean if category == MEAN else document.categories.get(category)
    return None if values is None else metric.of(values)


def _values(own: ExperimentRuns, category: str, metric: Metric) -> dict[str, Any]:
    found = [_of(document, category, metric) for document in own.documents.values()]
    known = [100 * value for value in found if value is not None]
    if not known or len(known) < len(found):
        return {"seeds": len(known)} | dict.fromkeys(VALUES)
    values = (sum(known) / len(known), min(known), max(known))
    return {"seeds": len(known)} | {key: round(value, 4) for key, value in zip(VALUES, values, strict=True)}


def _difference(
    own: ExperimentRuns, other: ExperimentRuns | None, category: str, metric: Metric
) -> dict[str, float | str | None]:
    row: dict[str, float | str | None] = dict.fromkeys(("delta_points", "ci95_low", "ci95_high", "not_tested"))
    if other is None:
        return row
    shared = sorted(set(own.documents) & set(other.documents))
    pairs = [(_of(own.documents[s], category, metric), _of(other.documents[s], category, metric)) for s in shared]
    defined = [first - second for first, second in pairs if first is not None and second is not None]
    if not defined or len(defined) < len(pairs):
        return row
    row["delta_points"] = round(100 * sum(defined) / len(defined), 4)
    paired = _paired(own.resampled, other.resampled, category, metric)
    row["not_tested"] = (paired.not_tested or None) if paired else NO_RESAMPLES
    if paired and paired.interval:
        row["ci95_low"], row["ci95_high"] = (round(100 * edge, 4) for edge in paired.interval)
    return row


def _paired(
    own: Mapping[int, ResampledMetrics], other: Mapping[int, ResampledMetrics], category: str, metric: Metric
) -> Difference | None:
    if category != MEAN:
        own, other = _only(own, safe_name(category)), _only(other, safe_name(category))
    return paired_difference(own, other, metric.key)


def _only(runs: Mapping[int, ResampledMetrics], name: str) -> dict[int, ResampledMetrics]:
    return {seed: run.only(name) for seed, run in runs.items() if name in run.images}
