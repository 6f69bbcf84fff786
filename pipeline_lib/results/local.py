"""Results of clients that each train alone: a table by client and category, and the mean over clients.

A category's figures are the means over the clients that have images of it; such a mean has no interval over images of
its own, each client has. Thresholds are each client's own too: from its normal images by its own bank. Files:
clients/<client>/banks/, scores.parquet, curves.parquet, calibration.parquet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_contracts.config import DecisionConfig
from data_contracts.manifests import LocalClient
from data_contracts.results import CategoryMetrics, FederationSummary, MetricsDocument, MetricValues
from data_contracts.tables import CURVES, IMAGE_SCORES, calibration_schema
from pipeline_lib.metrics.category import mean_metrics
from pipeline_lib.metrics.decisions import decide_categories
from pipeline_lib.results.documents import read_categories
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.files import copy_artifact, safe_name, write_table_file

CLIENTS_DIRECTORY = "clients"
ByClient = dict[str, dict[str, CategoryMetrics]]  # client -> category -> metrics


def fill_local_results(
    documents: Mapping[str, MetricsDocument],
    clients: Sequence[LocalClient],
    store: ArtifactStore,
    wanted: DecisionConfig,
    *,
    group_of: Mapping[str, str],
) -> None:
    """Set categories, mean and `local_clients` of the documents (subset -> document) from what each client scored.

    wanted: for each client's thresholds; group_of: image_id -> group, where it has one.
    """
    read = {client.client_id: read_categories(client.measured, store) for client in clients}
    for client in clients:
        _decide(client, read[client.client_id][0], store, wanted, group_of)
    warnings = list(dict.fromkeys(warning for _, found in read.values() for warning in found))
    for subset, document in documents.items():
        by_client: ByClient = {name: by_subset[subset] for name, (by_subset, _) in read.items()}
        names = sorted({category for categories in by_client.values() for category in categories})
        document.local_clients = by_client
        document.categories = {
            name: mean_over_clients([found[name] for found in by_client.values() if name in found]) for name in names
        }
        document.mean = mean_metrics(document.categories.values())
        document.warnings = [*document.warnings, *warnings]
        document.federation = _with_banks(document.federation, clients)


def _decide(
    client: LocalClient,
    by_subset: Mapping[str, Mapping[str, CategoryMetrics]],
    store: ArtifactStore,
    wanted: DecisionConfig,
    group_of: Mapping[str, str],
) -> None:
    """The client's thresholds, and what they do on the test images; nothing without calibration scores."""
    if not (client.calibration and client.scored):
        return
    calibration = pd.concat([store.read_table(manifest) for manifest in client.calibration], ignore_index=True)
    scores = pd.concat([store.read_table(category.scores) for category in client.scored], ignore_index=True)
    for subset, categories in by_subset.items():
        decide_categories(categories, calibration, scores, wanted, subset=subset, group_of=group_of)


def mean_over_clients(values: Sequence[CategoryMetrics]) -> CategoryMetrics:
    """Mean of one category's figures over clients; all clients were measured on the same test images."""
    mean = CategoryMetrics(**_mean(values).model_dump())
    mean.bad_saturation_channels = max(value.bad_saturation_channels for value in values)
    for split in ("by_defect", "by_folder", "by_group"):
        groups = {group for value in values for group in getattr(value, split)}
        found = {
            group: _mean([getattr(value, split)[group] for value in values if group in getattr(value, split)])
            for group in sorted(groups)
        }
        setattr(mean, split, found)
    return mean


def _mean(values: Sequence[MetricValues]) -> MetricValues:
    """The images are the same for all, so that they count once, and a mean has no interval over them."""
    images = {"n_good": values[0].n_good, "n_defective": values[0].n_defective}
    return mean_metrics(values).model_copy(update=images | {"ci95": {}})


def _with_banks(federation: FederationSummary, clients: Sequence[LocalClient]) -> FederationSummary:
    rows: dict[str, list[int]] = {}
    for client in clients:
        for bank in client.banks:
            rows.setdefault(bank.bank, []).append(bank.rows)
    by_bank = {bank: round(sum(counts) / len(counts)) for bank, counts in sorted(rows.items())}
    return federation.model_copy(update={"bank_rows_by_category": by_bank, "bank_rows": sum(by_bank.values())})


def write_local_files(out: Path, store: ArtifactStore, clients: Sequence[LocalClient]) -> None:
    """Banks, scores, curves and calibration scores of each client."""
    for client in clients:
        place = out / CLIENTS_DIRECTORY / safe_name(client.client_id)
        for bank in client.banks:
            copy_artifact(store, bank, place / "banks" / f"{safe_name(bank.bank)}.npz")
        scores = [store.read_table(category.scores) for category in client.scored]
        write_table_file(place / "scores.parquet", scores, IMAGE_SCORES)
        curves = [store.read_table(category.curves) for category in client.measured]
        write_table_file(place / "curves.parquet", curves, CURVES)
        calibration = [store.read_table(manifest) for manifest in client.calibration]
        if calibration:
            schema = calibration_schema(calibration[0].columns)
            write_table_file(place / "calibration.parquet", calibration, schema)
