"""The page of a benchmark from its comparison rows. Pure; reads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from data_contracts.benchmark import BenchmarkConfig
from pipeline_lib.benchmark_report.figures import bytes_chart, delta_chart
from pipeline_lib.comparison import comparison_table
from pipeline_lib.html_pages import page_template
from pipeline_lib.result_tables import per_cent

HEADLINE = "auc_spro_0.05"
TITLES = {"image_auroc": "image AUROC", HEADLINE: "AUC-sPRO@0.05"}
SUBSETS = {"all": "all test images", "development": "development half", "report": "other half"}
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class BenchmarkRecord:
    """What a finished benchmark has, as rows."""

    config: BenchmarkConfig
    comparisons: Mapping[str, Rows]  # all | development | report -> rows of comparison.json
    clients: Rows  # clients.json
    ranking: Rows  # ranking.json
    failed: Mapping[str, str]
    timings_s: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds over all runs
    environment: Mapping[str, Any] = field(default_factory=dict)
    finished: str = ""


def render_benchmark(record: BenchmarkRecord) -> str:
    """The report as one HTML document without scripts or outside requests. Text from the data is escaped."""
    rows = record.comparisons["all"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    return page_template("pipeline_lib.benchmark_report", "benchmark.html.j2").render(
        record=record,
        sentence=headline_sentence(rows),
        charts=[
            (f"{TITLES[metric]} against the baseline, points with 95 % interval, {group}", svg)
            for group in groups
            for metric in TITLES
            if (svg := delta_chart(_of(rows, metric, group), description=f"{TITLES[metric]}, {group}"))
        ],
        bytes_figure=bytes_chart(_of(rows, HEADLINE), description="Bytes against quality"),
        tables=[
            (SUBSETS[s], comparison_table(found, record.failed if s == "all" else {}))
            for s, found in record.comparisons.items()
        ],
        clients=[_client_line(row) for row in record.clients if row["metric"] == HEADLINE],
        worst=_worst(record.clients),
        ranking=[_rank_line(row) for row in record.ranking],
        timings=sorted(record.timings_s.items(), key=lambda item: -item[1]),
        config_yaml=yaml.safe_dump(record.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def headline_sentence(rows: Rows) -> str:
    """How many experiments differ from their baseline, as far as shown."""
    tested = [row for row in rows if row["metric"] == HEADLINE and row["verdict"] not in ("baseline", "not tested")]
    if not tested:
        return "Nothing was tested against a baseline."
    counts = {v: sum(row["verdict"] == v for row in tested) for v in ("worse", "better", "no difference shown")}
    return (
        f"Of {len(tested)} experiments compared with their baseline in AUC-sPRO@0.05, {counts['worse']} are shown to "
        f"be worse, {counts['better']} better, and for {counts['no difference shown']} no difference is shown "
        "(paired bootstrap, Holm-corrected). No difference shown is not the same as none."
    )


def _of(rows: Rows, metric: str, group: str | None = None) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["metric"] == metric and group in (None, row["group"])]


def _client_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "experiment": row["experiment"],
        "client": row["client"],
        "category": row["category"],
        "alone": per_cent(row["local"]),
        "federated": per_cent(row["federated"]),
        "centralized": per_cent(row["centralized"]),
        "benefit": _points(row["benefit_points"]),
        "price": _points(row["price_points"]),
    }


def _worst(clients: Rows) -> list[str]:
    """The client and category of each experiment that gains least from the federation."""
    found = []
    for name in dict.fromkeys(row["experiment"] for row in clients):
        own = [r for r in clients if r["experiment"] == name and r["metric"] == HEADLINE]
        defined = [row for row in own if row["benefit_points"] is not None]
        if defined:
            least = min(defined, key=lambda row: row["benefit_points"])
            found.append(
                f"{name}: {least['client']} gains least, {least['benefit_points']:+.1f} points on {least['category']}"
            )
    return found


def _rank_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "experiment": row["experiment"],
        "AUC-sPRO@0.05": per_cent(row["value"]),
        "place": "1" if row["place"] == 1 else "below",
        "points from the best": _points(row["points"]),
        "p (Holm)": "-" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
    }


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"
