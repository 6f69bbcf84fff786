"""Experiments against a baseline: differences of the means over categories, in points, with bytes and bank rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_contracts.results import MetricsDocument, MetricValues
from pipeline_lib.result_tables import HEADLINE_LIMIT, per_cent


def headline_values(values: MetricValues) -> dict[str, float | None]:
    """metric -> value in [0, 1] of the figures that experiments are compared by."""
    return {
        "image_auroc": values.image_auroc,
        "image_ap": values.image_ap,
        f"auc_spro_{HEADLINE_LIMIT}": values.auc_spro.get(HEADLINE_LIMIT),
    }


def compare(documents: Mapping[str, MetricsDocument], *, baseline: str) -> list[dict[str, Any]]:
    """A row an experiment and metric, with the keys of `comparison.json`.

    Empty where the baseline has no result; `delta_points` is null where a metric is undefined. Differences have no
    interval here: one run each says nothing about their noise.
    """
    if baseline not in documents:
        return []
    reference = headline_values(documents[baseline].mean)
    rows = []
    for name, document in documents.items():
        for metric, value in headline_values(document.mean).items():
            other = reference[metric]
            rows.append(
                {
                    "experiment": name,
                    "baseline": baseline,
                    "metric": metric,
                    "delta_points": None if value is None or other is None else round(100 * (value - other), 4),
                    "upload_share_of_image_bytes": upload_share(document),
                    "bank_rows": document.federation.bank_rows,
                }
            )
    return rows


def upload_share(document: MetricsDocument) -> float | None:
    """Bytes that all clients uploaded, as a share of their own image files; None where nothing was uploaded."""
    clients = document.federation.clients.values()
    raw = sum(client.raw_image_bytes for client in clients)
    if document.federation.mode == "centralized" or not raw:
        return None
    return round(sum(client.upload_bytes for client in clients) / raw, 4)


def comparison_table(
    documents: Mapping[str, MetricsDocument], failed: Mapping[str, str], *, baseline: str
) -> list[dict[str, Any]]:
    """A row an experiment for people: means in per cent, points against the baseline, clients, bytes, bank rows."""
    deltas = {(row["experiment"], row["metric"]): row["delta_points"] for row in compare(documents, baseline=baseline)}
    rows: list[dict[str, Any]] = []
    for name, document in documents.items():
        row: dict[str, Any] = {"experiment": name, "state": "completed"}
        for metric, value in headline_values(document.mean).items():
            delta = deltas.get((name, metric))
            row[metric] = per_cent(value) + ("" if delta is None or name == baseline else f" ({delta:+.1f})")
        share = upload_share(document)
        row["clients"] = len(document.federation.clients)
        row["failed clients"] = len(document.federation.failed_clients)
        row["upload share"] = "-" if share is None else f"{100 * share:.0f} %"
        row["bank rows"] = document.federation.bank_rows
        rows.append(row)
    columns = [column for column in (rows[0] if rows else {}) if column not in ("experiment", "state")]
    rows += [{"experiment": n, "state": f"failed: {cause}", **dict.fromkeys(columns)} for n, cause in failed.items()]
    return rows
