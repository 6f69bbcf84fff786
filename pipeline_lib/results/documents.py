"""metrics.json of a run: all of test and each half, with the federation, its rounds and its coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.config import ExperimentConfig
from data_contracts.federation import Federation, FederationRound, download_bytes
from data_contracts.manifests import MeasuredCategory, Partition
from data_contracts.results import (
    SUBSETS,
    CategoryMetrics,
    ClientSummary,
    Coverage,
    FederationSummary,
    MetricsDocument,
    RoundSummary,
)
from pipeline_lib.configuration.hardware import peak_rss_mb
from pipeline_lib.metrics.evaluation import metrics_document
from pipeline_lib.storage.artifact_store import ArtifactStore


def federation_summary(
    mode: str, federation: Federation, partition: Partition | None, *, pixel_bytes: Mapping[str, int] | None = None
) -> FederationSummary:
    """What the clients had and sent over all rounds, and the banks that came of it.

    Without a partition, as where the clients are stations with data of their own, a client's categories are those that
    it sent. `pixel_bytes`: client -> bytes of its decoded images. A federated client gets the banks back after every
    round.
    """
    uploads, banks, rounds = federation.uploads, federation.banks, federation.rounds
    categories = {client.client_id: tuple(upload.category for upload in client.uploads) for client in uploads}
    if partition is not None:
        categories = {client.client_id: client.categories for client in partition.clients}
    clients = {}
    for client in uploads:
        sent = client.uploads
        first = {upload.category: upload for upload in reversed(sent)}.values()
        clients[client.client_id] = ClientSummary(
            train_images=sum(upload.n_images for upload in first),
            patches=sum(upload.n_patches for upload in first),
            coreset_rows=sum(upload.rows for upload in sent),
            upload_bytes=0 if mode == "local_only" else sum(upload.size_bytes for upload in sent),
            raw_image_bytes=sum(upload.raw_image_bytes for upload in first),
            covering_radius=max((u.covering_radius for u in sent if u.round == sent[-1].round), default=None),
            raw_pixel_bytes=(pixel_bytes or {}).get(client.client_id, 0),
            download_bytes=sum(download_bytes(one.banks, categories.get(client.client_id, ())) for one in rounds),
        )
    by_bank = {bank.bank: bank.rows for bank in banks}
    merged_banks = by_bank if mode == "federated" else {}
    sent_rows: Counter[str] = Counter()
    for upload in (one for client in uploads for one in client.uploads):
        sent_rows[upload.category] += upload.rows
    summary = FederationSummary(
        mode=mode,
        clients=clients,
        failed_clients=federation.failed,
        refused_uploads=federation.refused,
        skipped_clients=[] if partition is None else list(partition.skipped_clients),
        bank_rows=sum(by_bank.values()),
        bank_rows_by_category=by_bank,
        banks_without_choice=[bank for bank, rows in merged_banks.items() if rows == sent_rows[bank]],
        regional={bank.bank: bank.regional for bank in banks if bank.regional is not None},
        rounds=[round_summary(one) for one in rounds] if len(rounds) > 1 else [],
    )
    for one in rounds if mode == "federated" else ():
        summary = with_bytes_left(summary, one.bytes_left)
    return summary


def with_bytes_left(federation: FederationSummary, found: Mapping[str, Mapping[str, int]]) -> FederationSummary:
    """The summary with further bytes that left the clients (client -> kind -> bytes) of a federated run."""
    if federation.mode != "federated":
        return federation
    total = {client: Counter(kinds) for client, kinds in federation.bytes_left_by_kind.items()}
    for client, kinds in found.items():
        total.setdefault(client, Counter()).update(kinds)
    return federation.model_copy(update={"bytes_left_by_kind": {client: dict(own) for client, own in total.items()}})


def scores_and_coverage_left(federation: Federation, store: ArtifactStore) -> dict[str, dict[str, int]]:
    """Client -> bytes of its calibration scores and of its coverage, as far as there are some."""
    found: dict[str, dict[str, int]] = {client: {"coverage": m.size_bytes} for client, m in federation.coverage.items()}
    for manifest in federation.calibration:
        for client in store.read_table(manifest)["client_id"].unique():
            found.setdefault(client, {})["calibration_scores"] = manifest.size_bytes
    return found


def round_summary(one: FederationRound) -> RoundSummary:
    """A round for metrics.json; its metrics are filled in by the caller."""
    return RoundSummary(
        round=one.round,
        delivered=[client.client_id for client in one.uploads],
        failed=one.failed,
        refused=one.refused,
        upload_rows=one.upload_rows,
        upload_bytes=one.upload_bytes,
        download_bytes=one.download_bytes,
        bank_rows={bank.bank: bank.rows for bank in one.banks},
        covering_radius=one.covering_radius,
    )


def pixel_bytes_by_client(partition: Partition, store: ArtifactStore) -> dict[str, int]:
    """client -> bytes of its training images, decoded to 8-bit RGB."""
    sizes = {}
    for client in partition.clients:
        table = store.read_table(client.images)
        sizes[client.client_id] = int(3 * (table.width * table.height).sum())
    return sizes


def read_categories(
    measured: Sequence[MeasuredCategory], store: ArtifactStore
) -> tuple[dict[str, dict[str, CategoryMetrics]], list[str]]:
    """(subset -> category -> metrics, warnings) of the measured categories."""
    by_subset: dict[str, dict[str, CategoryMetrics]] = {subset: {} for subset in SUBSETS}
    warnings: list[str] = []
    for category in measured:
        document = store.read_json(category.metrics)
        for subset in SUBSETS:
            by_subset[subset][category.category] = CategoryMetrics.model_validate(document["subsets"][subset])
        warnings += document["warnings"]
    return by_subset, warnings


def build_documents(
    config: ExperimentConfig,
    measured: Sequence[MeasuredCategory],
    store: ArtifactStore,
    federation: FederationSummary,
    timings_s: Mapping[str, float],
    warnings: Sequence[str],
) -> dict[str, MetricsDocument]:
    """subset -> metrics document."""
    by_subset, category_warnings = read_categories(measured, store)
    documents = {}
    for subset, categories in by_subset.items():
        document = metrics_document(
            categories,
            experiment=config.name,
            config_hash=config.config_hash(),
            seed=config.seed,
            subset=subset,
        )
        document.federation = federation
        document.timings_s = dict(timings_s)
        document.peak_rss_mb = round(peak_rss_mb(), 1)
        document.warnings = [*warnings, *category_warnings]
        documents[subset] = document
    return documents


def with_coverage(federation: FederationSummary, found: Mapping[str, Mapping[str, Any]]) -> FederationSummary:
    """The summary with each client's coverage (client -> category -> the fields of `Coverage`)."""
    by_client = {
        name: {category: Coverage.model_validate(values) for category, values in own.items()}
        for name, own in found.items()
    }
    clients = {
        name: client.model_copy(update={"coverage": by_client.get(name, {})})
        for name, client in federation.clients.items()
    }
    return federation.model_copy(update={"clients": clients})
