"""What the banks of experiments lack: the clients' coverage, by experiment and category."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_contracts.results import Coverage, MetricsDocument
from pipeline_lib.benchmark.comparison import ExperimentRuns

LARGEST = ("q50", "q90", "q95", "q99", "covering_radius")


def coverage_rows(runs: Mapping[str, ExperimentRuns]) -> list[dict[str, Any]]:
    """A row an experiment and category, means over seeds; empty where no run measured it (`evaluation.coverage`).

    `mean` is over the patches of all clients; the quantiles and the covering radius are those of the client where they
    are largest. A category that a seed lacks is left out.
    """
    rows = []
    for name, own in runs.items():
        by_seed = [_by_category(document) for document in own.documents.values()]
        for category in sorted(set.intersection(*map(set, by_seed)) if by_seed else ()):
            values = [found[category] for found in by_seed]
            row: dict[str, Any] = {"experiment": name, "category": category}
            row |= {key: round(sum(v[key] for v in values) / len(values)) for key in ("clients", "patches")}
            for key in ("mean", *LARGEST):
                known = [v[key] for v in values if v[key] is not None]
                row[key] = round(sum(known) / len(known), 6) if len(known) == len(values) else None
            rows.append(row)
    return rows


def _by_category(document: MetricsDocument) -> dict[str, dict[str, Any]]:
    found: dict[str, list[Coverage]] = {}
    for client in document.federation.clients.values():
        for category, values in client.coverage.items():
            found.setdefault(category, []).append(values)
    return {category: _over_clients(values) for category, values in found.items()}


def _over_clients(values: list[Coverage]) -> dict[str, Any]:
    patches = sum(own.patches for own in values)
    mean = sum(own.mean * own.patches for own in values) / patches
    found = {key: [getattr(own, key) for own in values] for key in LARGEST}
    largest = {key: None if None in own else max(own) for key, own in found.items()}
    return {"clients": len(values), "patches": patches, "mean": mean, **largest}
