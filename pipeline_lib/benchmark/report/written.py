"""Files of a benchmark: JSON for programs, tables as CSV and LaTeX, figures as SVG, and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.benchmark.record import BenchmarkRecord, Rows
from pipeline_lib.benchmark.report.chosen import benchmark_figures
from pipeline_lib.benchmark.report.page import people_tables, render_benchmark
from pipeline_lib.drawing.drawing import svg_file
from pipeline_lib.drawing.latex import latex_table
from pipeline_lib.storage.artifact_store import write_file
from pipeline_lib.storage.files import safe_name, write_json_file

FILES = {"all": "comparison", "development": "comparison_development", "report": "comparison_report"}


def write_benchmark(record: BenchmarkRecord, out: Path) -> None:
    """Write everything into the benchmark's directory; files that exist are replaced, figures that went are removed."""
    tables: dict[str, Rows] = {FILES[subset]: rows for subset, rows in record.comparisons.items()}
    tables |= {"clients": record.clients, "ranking": record.ranking}
    tables |= {"weak_spots": record.weak_spots, "groups": record.groups, "categories": record.categories}
    if record.coverage:
        tables["coverage"] = record.coverage
    for name, rows in tables.items():
        write_json_file(out / f"{name}.json", list(rows))
        write_file(out / "tables" / f"{name}.csv", pd.DataFrame(_with_ends(rows)).to_csv(index=False).encode())
    for name, (caption, shown) in people_tables(record).items():
        file = out / "tables" / f"{name}.tex"
        if shown:
            write_file(file, latex_table(shown, caption=caption).encode())
        else:
            file.unlink(missing_ok=True)
    write_json_file(out / "failed.json", dict(record.failed))
    write_json_file(out / "warnings.json", [*record.warnings, *record.validation])
    figures = benchmark_figures(record)
    for old in (out / "figures").glob("*.*"):
        old.unlink()
    for figure in figures:
        write_file(out / "figures" / f"{safe_name(figure.name)}.svg", svg_file(figure.drawing))
    write_file(out / "benchmark.html", render_benchmark(record, figures).encode())


def _with_ends(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows with numbers for the ends of their intervals, in per cent and points, and the value beside them."""
    return [dict(row) | _ends(row) for row in rows]


def _ends(row: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    if "value_ci95" in row:
        found["value_per_cent"] = None if row["value"] is None else 100 * row["value"]
    for key, scale in (("value_ci95", 100.0), ("ci95", 1.0), ("ci95_images", 1.0)):
        if key in row:
            ends = row[key] or (None, None)
            found |= {
                f"{key}_{side}": None if end is None else scale * end
                for side, end in zip(("low", "high"), ends, strict=True)
            }
    return found
