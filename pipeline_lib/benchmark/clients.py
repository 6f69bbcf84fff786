"""Client by category: what a client has alone, what the federation of the same clients gives it, and what centralized.

Each category's images are the same for all; only the bank differs. Values are means over the seeds that all three have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_contracts.config import ExperimentConfig, FederatedConfig
from data_contracts.results import COMPARED, CategoryMetrics, Metric, MetricsDocument
from pipeline_lib.benchmark.comparison import ExperimentRuns

PARTITION_KEYS = ("partitioning", "num_clients", "alpha", "client_assignments", "qc_sample_ratio")


def same_clients(a: FederatedConfig, b: FederatedConfig) -> bool:
    """Whether two experiments cut the same data set into the same clients."""
    return all(getattr(a, key) == getattr(b, key) for key in PARTITION_KEYS)


def client_rows(
    runs: Mapping[str, ExperimentRuns], configs: Mapping[str, ExperimentConfig], *, baseline: str
) -> list[dict[str, Any]]:
    """A row a federated experiment, client, category and metric, for every local-only experiment of the same clients.

    `benefit_points`: federated less local; `price_points`: federated less centralized (the baseline).
    """
    rows: list[dict[str, Any]] = []
    central = runs.get(baseline)
    for alone in [name for name in runs if configs[name].federated.mode == "local_only"]:
        for name in [n for n in runs if configs[n].federated.mode == "federated"]:
            mine, theirs = configs[alone], configs[name]
            if same_clients(mine.federated, theirs.federated) and mine.model == theirs.model:
                rows += _pair(name, runs[name], alone, runs[alone], central)
    return rows


def _pair(
    name: str, federated: ExperimentRuns, alone: str, local: ExperimentRuns, central: ExperimentRuns | None
) -> list[dict[str, Any]]:
    seeds = [s for s in local.documents if s in federated.documents and (central is None or s in central.documents)]
    first = local.documents[seeds[0]].local_clients if seeds else {}
    rows = []
    for client, categories in first.items():
        for category in categories:
            for metric in COMPARED:
                own = [_of(local.documents[s].local_clients.get(client, {}).get(category), metric) for s in seeds]
                together = [_of(federated.documents[s].categories.get(category), metric) for s in seeds]
                all_at_once = [_of(_central(central, s, category), metric) for s in seeds]
                values = {"local": _mean(own), "federated": _mean(together), "centralized": _mean(all_at_once)}
                rows.append(
                    {
                        "experiment": name,
                        "local_only": alone,
                        "client": client,
                        "category": category,
                        "metric": metric.key,
                    }
                    | values
                    | {
                        "benefit_points": _points(values["federated"], values["local"]),
                        "price_points": _points(values["federated"], values["centralized"]),
                    }
                )
    return rows


def _central(central: ExperimentRuns | None, seed: int, category: str) -> CategoryMetrics | None:
    document: MetricsDocument | None = central.documents.get(seed) if central else None
    return document.categories.get(category) if document else None


def _of(values: CategoryMetrics | None, metric: Metric) -> float | None:
    return None if values is None else metric.of(values)


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined and len(defined) == len(values) else None


def _points(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round(100 * (first - second), 4)
