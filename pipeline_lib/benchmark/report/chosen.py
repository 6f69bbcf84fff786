"""Which figures a benchmark's page has, and which experiments stand for all of them where there is room for few."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_contracts.benchmark import MAIN_GROUP, BenchmarkConfig
from data_contracts.config import canonical_json
from data_contracts.results import AUC_SPRO, HEADLINES
from pipeline_lib.benchmark.comparison import against_baselines, named_pairs
from pipeline_lib.benchmark.record import HEADLINE, BenchmarkRecord, Rows, of
from pipeline_lib.benchmark.report.figures import coverage_chart, delta_chart, value_bars
from pipeline_lib.benchmark.report.trends import Series, bytes_chart, curves_chart, scaling_chart
from pipeline_lib.drawing.drawing import Drawing

TITLES = {metric.key: metric.title for metric in HEADLINES}


@dataclass(frozen=True)
class Figure:
    """A drawing with its file name and what stands below it."""

    name: str
    section: str  # differences | pairs | values | curves | scaling | coverage | bytes
    caption: str
    drawing: Drawing


def benchmark_figures(record: BenchmarkRecord) -> list[Figure]:
    """All figures that the benchmark has something for."""
    rows = against_baselines(record.comparisons["all"])
    found = []
    for group in dict.fromkeys(row["group"] for row in rows):
        for metric, title in TITLES.items():
            own = of(rows, metric, group)
            caption = f"{title} against the baseline, {_points(own)}"
            caption += f": {group}" if group != MAIN_GROUP else ""
            drawing = delta_chart(own, description=caption)
            found.append(Figure(f"differences-{group}-{metric}", "differences", caption, drawing))
    for metric, title in TITLES.items():
        pairs = of(named_pairs(record.comparisons["all"]), metric)
        caption = f"{title}, named pairs: {_points(pairs)}, against the experiment in the second line"
        drawing = delta_chart(pairs, description=caption, name_baseline=True)
        found.append(Figure(f"pairs-{metric}", "pairs", caption, drawing))
    for metric, title in TITLES.items():
        caption = f"{title} with 95 % interval, per cent; grey: the baseline"
        found.append(Figure(f"values-{metric}", "values", caption, value_bars(of(rows, metric), description=caption)))
    for category, curves in record.curves.items():
        caption = f"sPRO against the false positive rate, {category}; dashed: the limit of {AUC_SPRO.title}"
        found.append(Figure(f"curves-{category}", "curves", caption, curves_chart(curves, description=caption)))
    for metric, title in TITLES.items():
        caption = f"{title} over the number of clients, {_points(of(rows, metric))}, against the baseline"
        drawing = scaling_chart(scaling_series(of(rows, metric), record.config), description=caption)
        found.append(Figure(f"scaling-{metric}", "scaling", caption, drawing))
    for category in dict.fromkeys(row["category"] for row in record.coverage):
        caption = f"{category}: distance of training patches to the nearest row of the final bank; see below"
        drawing = coverage_chart([r for r in record.coverage if r["category"] == category], description=caption)
        found.append(Figure(f"coverage-{category}", "coverage", caption, drawing))
    caption = f"{AUC_SPRO.title} against the baseline over the bytes that clients upload in all rounds"
    found.append(Figure("bytes", "bytes", caption, bytes_chart(of(rows, HEADLINE), description=caption)))
    return [figure for figure in found if figure.drawing]


def _points(rows: Rows) -> str:
    return "points with 95 % interval" if any(row["ci95"] for row in rows) else "points, not tested"


def scaling_series(rows: Rows, config: BenchmarkConfig) -> list[Series]:
    """Experiments that differ in the number of clients alone, as lines; only where there are two or more."""
    configs = config.configs()
    by_setting: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in [row for row in rows if row["experiment"] in configs]:
        own = configs[row["experiment"]]
        if own.federated.mode == "centralized" or own.federated.partitioning in ("category", "saved"):
            continue
        values = own.model_dump(mode="json", exclude={"name": True, "runtime": True, "federated": {"num_clients"}})
        if row["delta_points"] is not None:
            by_setting.setdefault(canonical_json(values), {})[row["experiment"]] = row
    found = []
    for own_rows in by_setting.values():
        counts = {name: configs[name].federated.num_clients for name in own_rows}
        if len(set(counts.values())) < 2:
            continue
        order = sorted(own_rows, key=lambda name: counts[name])
        points = [(counts[name], own_rows[name]["delta_points"], own_rows[name]["ci95"]) for name in order]
        found.append(Series(_shared_name(order), [(x, y, tuple(ci) if ci else None) for x, y, ci in points]))
    return found


def _shared_name(names: list[str]) -> str:
    shared = "".join(
        letters[0] for letters in itertools.takewhile(lambda c: len(set(c)) == 1, zip(*names, strict=False))
    )
    return re.sub(r"[-_.\d]+$", "", shared) or names[0]
