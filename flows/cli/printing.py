"""What the commands print: tables in per cent, one JSON value, where things lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_contracts.results import MetricsDocument
from pipeline_lib.results import tables


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
    """Rows as a table, "-" where a row lacks a column; as wide as it needs where the output is not a terminal."""
    table = Table(title=title, title_justify="left")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for column in columns:
        table.add_column(column, justify="left" if column in ("category", "client", "state", "experiment") else "right")
    for row in rows:
        table.add_row(*("-" if row.get(column) is None else str(row[column]) for column in columns))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
