"""Where experiments are weak: by category, defect type and client, and structural against logical defects.

Values are means over seeds; a category that lacks a defect or group does not count in its mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from data_contracts.results import AUC_SPRO, HEADLINES, CategoryMetrics, Metric, MetricValues
from pipeline_lib.benchmark.comparison import ExperimentRuns

Split = Literal["category", "by_defect", "by_group"]
Part = tuple[str, str]  # category, and the defect or group in it ("" for the category itself)


def weak_spots(
    runs: Mapping[str, ExperimentRuns], baselines: Mapping[str, str], clients: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row an experiment: its worst category, defect type and client in AUC-sPRO@0.05, and what it loses most on.

    clients: rows of clients.json; the worst client is the one whose gain over being alone is least, or, of clients
    that train alone, the one with the lowest mean.
    """
    rows = []
    for name, own in runs.items():
        base = runs.get(baselines[name])
        by_category, by_defect = part_values(own, "category"), part_values(own, "by_defect")
        row: dict[str, Any] = {"experiment": name}
        row |= _lowest("worst_category", by_category)
        row |= _lowest("worst_defect", by_defect)
        losses = _losses(by_defect or by_category, part_values(base, "by_defect" if by_defect else "category"))
        least = min(losses, key=lambda part: losses[part]) if losses and name != baselines[name] else None
        row["largest_loss"] = None if least is None else _name(least)
        row["largest_loss_points"] = None if least is None else round(100 * losses[least], 4)
        rows.append(row | _worst_client(name, own, clients))
    return rows


def group_rows(runs: Mapping[str, ExperimentRuns], baselines: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row an experiment, defect group (structural, logical, ...) and metric: mean over categories, against the
    baseline's in points; empty where no defect has a group."""
    rows = []
    for name, own in runs.items():
        base = runs.get(baselines[name])
        for metric in HEADLINES:
            mine, theirs = part_values(own, "by_group", metric), part_values(base, "by_group", metric)
            for group in sorted({part[1] for part in mine}):
                value = _mean(v for part, v in mine.items() if part[1] == group)
                other = _mean(v for part, v in theirs.items() if part[1] == group)
                rows.append(
                    {
                        "experiment": name,
                        "group": group,
                        "metric": metric.key,
                        "value": value,
                        "delta_points": None if value is None or other is None else round(100 * (value - other), 4),
                        "n_defective": _count(own, group),
                    }
                )
    return rows


def part_values(runs: ExperimentRuns | None, split: Split, metric: Metric = AUC_SPRO) -> dict[Part, float]:
    """(category, part) -> mean over seeds; parts that a seed lacks, or that are undefined, are left out."""
    found: dict[Part, list[float | None]] = {}
    for document in runs.documents.values() if runs else ():
        for category, values in document.categories.items():
            for part, own in _parts(category, values, split):
                found.setdefault(part, []).append(metric.of(own))
    n_seeds = len(runs.documents) if runs else 0
    complete = {part: [v for v in values if v is not None] for part, values in found.items()}
    return {part: sum(values) / n_seeds for part, values in complete.items() if len(values) == n_seeds}


def _parts(category: str, values: CategoryMetrics, split: Split) -> Iterable[tuple[Part, MetricValues]]:
    if split == "category":
        return [((category, ""), values)]
    return [((category, name), own) for name, own in getattr(values, split).items()]


def _lowest(key: str, values: Mapping[Part, float]) -> dict[str, Any]:
    if not values:
        return {key: None, f"{key}_value": None}
    part = min(values, key=lambda p: values[p])
    return {key: _name(part), f"{key}_value": values[part]}


def _losses(own: Mapping[Part, float], base: Mapping[Part, float]) -> dict[Part, float]:
    return {part: value - base[part] for part, value in own.items() if part in base}


def _worst_client(name: str, own: ExperimentRuns, clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    gains = [
        r for r in clients if (r["experiment"], r["metric"]) == (name, AUC_SPRO.key) and r["benefit_points"] is not None
    ]
    if gains:
        least = min(gains, key=lambda row: row["benefit_points"])
        text = f"{least['benefit_points']:+.1f} points over being alone on {least['category']}"
        return {"worst_client": least["client"], "worst_client_is": text}
    alone: dict[str, list[float]] = {}
    for document in own.documents.values():
        for client, categories in document.local_clients.items():
            alone.setdefault(client, []).extend(v for c in categories.values() if (v := AUC_SPRO.of(c)) is not None)
    means = {client: mean for client, values in alone.items() if (mean := _mean(values)) is not None}
    if not means:
        return {"worst_client": None, "worst_client_is": None}
    worst = min(means, key=lambda client: means[client])
    return {"worst_client": worst, "worst_client_is": f"mean {100 * means[worst]:.1f} alone"}


def _count(runs: ExperimentRuns, group: str) -> int:
    document = next(iter(runs.documents.values()))
    return sum(c.by_group[group].n_defective for c in document.categories.values() if group in c.by_group)


def _name(part: Part) -> str:
    return f"{part[0]}/{part[1]}" if part[1] else part[0]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
