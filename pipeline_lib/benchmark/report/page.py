"""The page of a benchmark from its rows, figures and pictures. Pure; reads nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from data_contracts.results import SUBSET_TITLES
from pipeline_lib.benchmark.categories import MEAN
from pipeline_lib.benchmark.comparison import against_baselines, named_pairs
from pipeline_lib.benchmark.record import HEADLINE, BenchmarkRecord, Rows
from pipeline_lib.benchmark.report.chosen import TITLES, Figure, benchmark_figures
from pipeline_lib.benchmark.report.headline import headline_figures, headline_sentence
from pipeline_lib.benchmark.report.results_table import (
    captions,
    category_table,
    category_tables,
    cost_table,
    results_table,
)
from pipeline_lib.benchmark.side_by_side import KINDS
from pipeline_lib.benchmark.tables import pair_table, shared
from pipeline_lib.drawing.drawing import inline_svg, style_sheet
from pipeline_lib.drawing.html_pages import page_template
from pipeline_lib.results.method_words import method_sentence
from pipeline_lib.results.tables import per_cent

CLIENTS = (
    f"{TITLES[HEADLINE]} by client and category; benefit: federated less alone, price: federated less centralized, "
    "points"
)
WEAK = f"Worst category, defect type and client of each experiment, {TITLES[HEADLINE]}"
GROUPS = "By group of defects (evaluation.defect_groups), means over categories; points against the baseline"
COVERAGE = (
    "Distance of the clients' training patches to the nearest row of the final bank; mean over all patches, the rest "
    "of the client where it is largest"
)
SUBSETS = {"all": "all test images"} | {half: SUBSET_TITLES[half] for half in ("development", "report")}


def render_benchmark(record: BenchmarkRecord, figures: Sequence[Figure] | None = None) -> str:
    """The report as one HTML document without scripts or outside requests. Text from the data is escaped."""
    rows = record.comparisons["all"]
    by_section: dict[str, list[Figure]] = {}
    for figure in benchmark_figures(record) if figures is None else figures:
        by_section.setdefault(figure.section, []).append(figure)
    return page_template("pipeline_lib.benchmark.report", "benchmark.html.j2", svg=inline_svg, webp=_webp).render(
        record=record,
        sentence=headline_sentence(rows),
        headline=headline_figures(against_baselines(rows)),
        style_sheet=style_sheet(),
        figures=by_section,
        scope=_scope(record),
        method=method_sentence(record.config.configs()),
        tables=[
            (_titled(SUBSETS[s], found), results_table(found, record.tabled.get(s, ())))
            for s, found in record.comparisons.items()
        ],
        costs=cost_table(rows),
        categories=category_tables(record.categories),
        pairs=[(SUBSETS[s], pair_table(found)) for s, found in record.comparisons.items() if named_pairs(found)],
        clients=[_client_line(row) for row in record.clients if row["metric"] == HEADLINE],
        weak=[_weak_line(row) for row in record.weak_spots],
        groups=[_group_line(row) for row in record.groups],
        coverage=[_coverage_line(row) for row in record.coverage],
        ranking=[_rank_line(row) for row in record.ranking],
        kinds=KINDS,
        captions={"clients": CLIENTS, "weak": WEAK, "groups": GROUPS, "coverage": COVERAGE},
        timings=sorted(record.timings_s.items(), key=lambda item: -item[1]),
        environment=_environment(record.environment),
        config_yaml=yaml.safe_dump(record.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def people_tables(record: BenchmarkRecord) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """File name -> caption and rows of the page's tables, for LaTeX."""
    name, seeds = record.config.name, record.config.all_seeds()
    results, by_category = captions(name, record.comparisons["all"], seeds)
    found = {
        "categories": (by_category, category_table(record.categories)),
        "clients": (CLIENTS, [_client_line(row) for row in record.clients if row["metric"] == HEADLINE]),
        "weak_spots": (WEAK, [_weak_line(row) for row in record.weak_spots]),
        "groups": (GROUPS, [_group_line(row) for row in record.groups]),
        "ranking": (f"Against the best, {TITLES[HEADLINE]}", [_rank_line(row) for row in record.ranking]),
        "coverage": (COVERAGE, [_coverage_line(row) for row in record.coverage]),
        "costs": (f"{name}: bytes and banks, means over seeds", cost_table(record.comparisons["all"])),
    }
    for subset, rows in record.comparisons.items():
        ending = "" if subset == "all" else f"_{subset}"
        caption = results.replace(SUBSETS["all"], SUBSETS[subset])
        found[f"comparison{ending}"] = caption, results_table(rows, record.tabled.get(subset, ()))
        found[f"pairs{ending}"] = f"Named pairs, {SUBSETS[subset]}, points", pair_table(rows)
    return found


def _scope(record: BenchmarkRecord) -> str:
    """What was run, in a line."""
    categories = {row["category"] for row in record.categories} - {MEAN}
    of_these = f" on {len(categories)} {'category' if len(categories) == 1 else 'categories'}" if categories else ""
    return f"{record.config.described()}{of_these}."


def _titled(subset: str, rows: Rows) -> str:
    """The subset, and what the differences are to where that is one experiment."""
    baseline = shared([row["baseline"] for row in against_baselines(rows)])
    return f"{subset}, differences to {baseline}" if baseline else subset


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


def _weak_line(row: Mapping[str, Any]) -> dict[str, str]:
    client = f"{row['worst_client']}: {row['worst_client_is']}" if row["worst_client"] else "-"
    loss = f"{row['largest_loss']} {_points(row['largest_loss_points'])}" if row["largest_loss"] else "-"
    return {
        "experiment": row["experiment"],
        "worst category": f"{row['worst_category'] or '-'} {per_cent(row['worst_category_value'])}",
        "worst defect type": f"{row['worst_defect'] or '-'} {per_cent(row['worst_defect_value'])}",
        "loses most on": loss,
        "worst client": client,
    }


def _group_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "experiment": row["experiment"],
        "defects": row["group"],
        "metric": TITLES[row["metric"]],
        "value": per_cent(row["value"]),
        "points": _points(row["delta_points"]),
        "defective images": str(row["n_defective"]),
    }


def _coverage_line(row: Mapping[str, Any]) -> dict[str, str]:
    shares = {"mean": "mean", "50 %": "q50", "90 %": "q90", "95 %": "q95", "99 %": "q99", "largest": "covering_radius"}
    counts = {"clients": str(row["clients"]), "patches": f"{row['patches']:,}".replace(",", " ")}
    names = {"experiment": row["experiment"], "category": row["category"]}
    return (
        names
        | counts
        | {title: "-" if row.get(key) is None else f"{row[key]:#.3g}".rstrip(".") for title, key in shares.items()}
    )


def _rank_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "experiment": row["experiment"],
        TITLES[HEADLINE]: per_cent(row["value"]),
        "place": "1" if row["place"] == 1 else "below",
        "points from the best": _points(row["points"]),
        "simultaneous 95 %": f"{_points(row['ci95'][0])} to {_points(row['ci95'][1])}" if row["ci95"] else "-",
    }


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value, packages in one line each."""
    flat: list[tuple[str, str]] = []
    for name, value in environment.items():
        if isinstance(value, Mapping):
            flat += [(str(key), str(own)) for key, own in value.items()]
        else:
            flat.append((name.replace("_", " "), "none" if value is None else str(value)))
    return flat


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _webp(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
