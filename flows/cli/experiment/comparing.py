"""The comparison of a benchmark: printed, or made anew from runs that are finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.errors import QuorumError
from flows.cli.next_steps import say_next
from flows.cli.options import fail
from flows.cli.printing import print_json, print_table
from pipeline_lib.benchmark.gathering import finished_results, gather_benchmark
from pipeline_lib.benchmark.report.results_table import category_table
from pipeline_lib.benchmark.report.written import write_benchmark
from pipeline_lib.benchmark.tables import comparison_table, pair_table

COMPARISON = "comparison.json"
MOST_LINES = 30
"""Of a table by category in a terminal."""


def compare_finished(config: BenchmarkConfig, *, as_json: bool) -> None:
    """Compare what the benchmark's directory holds and write its files anew; nothing runs, the history stays as it is.

    Raises QuorumError naming experiments that are not there, after writing the comparison of the others.
    """
    assert config.out is not None  # the command asks for it
    directory = config.out.expanduser().absolute()
    results, missing = finished_results(config, directory)
    if not results:
        fail(f"no experiment of {config.name} is there: {next(iter(missing.values()))}")
    write_benchmark(gather_benchmark(config, results, missing), directory)
    print_comparison(config.name, directory, as_json=as_json)
    if missing:
        causes = "; ".join(f"{name}: {cause}" for name, cause in missing.items())
        raise QuorumError(f"without {len(missing)} of {len(config.cells())} experiments: {causes}")


def print_comparison(name: str, directory: Path, *, as_json: bool) -> None:
    """Print the rows of comparison.json, those of categories.json where they are few, and where the files lie."""
    rows = _rows(directory / COMPARISON)
    if as_json:
        print_json(rows)
        return
    print_table(comparison_table(rows, {}), f"{name}: means over categories and seeds, all test images")
    if pairs := pair_table(rows):
        print_table(pairs, "named pairs: the experiment less the one that it is compared with, points")
    print("(points against the baseline [paired 95 % interval]; * where a difference is shown, Holm-corrected)")
    for reason in sorted({row["not_tested"] for row in rows if row["not_tested"]}):
        print(f"({reason})")
    by_category = [{name: _in_a_line(value) for name, value in line.items()} for line in _by_category(directory)]
    if 0 < len(by_category) <= MOST_LINES:
        print_table(by_category, "by category: means over seeds [lowest-highest], points [paired 95 % interval]")
    elif by_category:
        print(f"by category: {directory / 'tables' / 'categories.csv'}")
    for warning in _rows(directory / "warnings.json"):
        print(f"warning: {warning}")
    print(f"comparison: {directory / COMPARISON}")
    print(f"report:     {directory / 'benchmark.html'}")
    say_next("benchmark", report=directory / "benchmark.html")


def _by_category(directory: Path) -> list[dict[str, Any]]:
    return category_table(_rows(directory / "categories.json"))


def _in_a_line(value: str | tuple[str, str]) -> str:
    return value if isinstance(value, str) else f"{value[0]} ({value[1]})"


def _rows(file: Path) -> list[Any]:
    """What a file of the benchmark holds; nothing in one of an earlier version that lacks it."""
    found: list[Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return found
