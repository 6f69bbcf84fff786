"""What a finished run shows first in the Prefect UI: one page of Markdown, from its result to where its report lies."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from data_contracts.results import MetricsDocument
from pipeline_lib.results.tables import client_rows, metric_rows, round_rows, table_in_ui

PICTURES_BYTES = 600_000  # of all pictures; as data: URIs a third more, and the UI takes artifacts below 1 MB


def run_summary(document: MetricsDocument, directory: Path, sheets: Sequence[Path]) -> str:
    """Result, clients, heat maps, report, in this order.

    sheets: JPEG files, one a category; those that do not fit any more stay in the run directory alone.
    """
    parts = ["## Result", "In per cent with 95 % intervals, on all test images.", table_in_ui(metric_rows(document))]
    parts += [f"- {warning}" for warning in document.warnings]
    if document.federation.clients or document.federation.failed_clients:
        parts += ["## Clients", table_in_ui(client_rows(document.federation))]
    if document.federation.rounds:
        parts += ["## Rounds", table_in_ui(round_rows(document.federation))]
    pictures, left = [], PICTURES_BYTES
    for path in sheets:
        if (size := path.stat().st_size) <= left:
            left -= size
            pictures += [f"### {path.stem}", f"![heat maps of {path.stem}]({jpeg_uri(path)})"]
    if pictures:
        parts += ["## Heat maps", *pictures]
    parts += ["## Report", f"`{directory / 'report.html'}`"]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ")


def jpeg_uri(path: Path) -> str:
    """A JPEG file as a data: URI."""
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
