"""What the commands print: tables in per cent, one JSON value, where things lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from data_contracts.results import MetricsDocument
from flows.cli.fitting import fit
from pipeline_lib.results import tables

PIPED_WIDTH = 160


def print_metrics(metrics: MetricsDocument) -> None:
    """Metrics in per cent with 95 % intervals, clients, warnings."""
    print_table(tables.metric_rows(metrics), f"{metrics.experiment}: per cent [95 % interval], all test images")
    if metrics.local_clients:
        print_table(tables.local_rows(metrics), "each client alone; the rows above are means over clients")
    if metrics.federation.rounds:
        print_table(tables.round_rows(metrics.federation), "rounds; metrics in per cent, means over categories")
    if metrics.federation.clients:
        print_table(tables.client_rows(metrics.federation), f"clients; bank rows: {metrics.federation.bank_rows}")
    for warning in metrics.warnings:
        print(f"warning: {warning}")


def print_where(directory: Path) -> None:
    """Where the results lie."""
    print(f"run directory: {directory}")
    if (directory / "report.html").is_file():
        print(f"report:        {directory / 'report.html'}")


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """Rows as a table as wide as the terminal at most, 160 characters elsewhere; "-" where a row lacks a column."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    texts = [["-" if row.get(column) is None else str(row[column]) for column in columns] for row in rows]
    console = Console()
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else PIPED_WIDTH
    print(title)
    for block in fit(columns, texts, width):
        print(*block.drawn(), sep="\n")


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
