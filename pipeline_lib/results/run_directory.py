"""The run directory: everything that one run leaves for people, and a model that `fedpatch score` can use.

config.yaml, environment.json, metrics.json (all of test), metrics_development.json and metrics_report.json (its
halves), metrics.parquet, curves.parquet, scores.parquet, partition.parquet, partition_stats.json, validation.json,
validation.txt, calibration.parquet (out-of-fold scores of normal training images), manifests.json, banks/<bank>.npz,
model.json, report.html; maps/ where asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from data_contracts.config import ExperimentConfig
from data_contracts.federation import Federation
from data_contracts.manifests import BankManifest, Manifest, MeasuredCategory, Partition, PreparedDataset
from data_contracts.results import (
    SUBSETS,
    CategoryMetrics,
    ClientSummary,
    FederationSummary,
    MetricsDocument,
    RoundSummary,
)
from data_contracts.rounds import FederationRound, download_bytes
from data_contracts.settings import BackboneSettings
from data_contracts.tables import CALIBRATION_SCORES, CURVES, IMAGE_SCORES, METRICS_TABLE
from data_contracts.validation import ValidationReport
from pipeline_lib.configuration.files import write_config
from pipeline_lib.configuration.hardware import describe_environment, peak_rss_mb
from pipeline_lib.dataset.validation import render_validation_text
from pipeline_lib.metrics.category import metrics_table
from pipeline_lib.metrics.evaluation import metrics_document
from pipeline_lib.storage.artifact_store import ArtifactStore, parquet_content, sha256_of_file, write_file

CALIBRATION_FILE = "calibration.parquet"
RESULT_FILE = "result.json"
METRICS_FILES = {"all": "metrics.json", "development": "metrics_development.json", "report": "metrics_report.json"}


@dataclass(frozen=True)
class RunFigures:
    """What a run's test images gave; frames are over all of test."""

    documents: Mapping[str, MetricsDocument]  # all | development | report
    tables: Sequence[pd.DataFrame]  # METRICS of the categories
    curves: pd.DataFrame  # CURVES
    scores: pd.DataFrame  # IMAGE_SCORES
    calibration: pd.DataFrame  # CALIBRATION_SCORES of normal training images; empty: no thresholds


def run_directory(config: ExperimentConfig) -> Path:
    """Where the run's files go: `runtime.out`, or a directory named after the experiment and the time."""
    return (config.runtime.out or default_run_directory(config.name)).expanduser().absolute()


def default_run_directory(name: str) -> Path:
    """runs/<name>-<timestamp>, counted up where that exists."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{name}-{stamp}"
    number = 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{stamp}-{number}"
    return path


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
    return FederationSummary(
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


def write_run_directory(
    out: Path,
    store: ArtifactStore,
    config: ExperimentConfig,
    backbone: BackboneSettings,
    banks: Sequence[BankManifest],
    figures: RunFigures,
) -> None:
    """Write what every run leaves but the report. Files that exist are replaced, each whole."""
    out.mkdir(parents=True, exist_ok=True)
    write_config(config, out / "config.yaml")
    write_json_file(out / "environment.json", describe_environment())
    write_metrics_files(out, figures.documents, figures.tables, [figures.curves])
    write_table_file(out / "scores.parquet", [figures.scores], IMAGE_SCORES)
    write_model(out, store, config, backbone, banks, figures.calibration)


def write_dataset_files(out: Path, store: ArtifactStore, dataset: PreparedDataset) -> None:
    """Write the index, what the validation found, and who held what."""
    copy_artifact(store, dataset.partition.table, out / "partition.parquet")
    copy_artifact(store, dataset.partition.stats, out / "partition_stats.json")
    copy_artifact(store, dataset.validation, out / "validation.json")
    copy_artifact(store, dataset.indexed.index, out / "dataset_index.parquet")
    report = ValidationReport.model_validate(store.read_json(dataset.validation))
    write_file(out / "validation.txt", render_validation_text(report).encode())


def write_model(
    out: Path,
    store: ArtifactStore,
    config: ExperimentConfig,
    backbone: BackboneSettings,
    banks: Sequence[BankManifest],
    calibration: pd.DataFrame,
) -> None:
    """What `fedpatch score` needs: model.json, banks/<bank>.npz and, where there are scores, calibration.parquet."""
    for bank in banks:
        copy_artifact(store, bank, out / "banks" / f"{safe_name(bank.bank)}.npz")
    model = {
        "schema_version": 1,
        "backbone": backbone.model_dump(mode="json"),
        "banks": {bank.bank: {"file": f"banks/{safe_name(bank.bank)}.npz", **bank.model_dump()} for bank in banks},
    }
    if len(calibration):
        write_table_file(out / CALIBRATION_FILE, [calibration], CALIBRATION_SCORES)
        model["calibration"] = {
            "file": CALIBRATION_FILE,
            "sha256": sha256_of_file(out / CALIBRATION_FILE),
            "target_false_alarm_rate": config.decision.target_false_alarm_rate,
        }
    write_json_file(out / "model.json", model)


def write_metrics_files(
    out: Path,
    documents: Mapping[str, MetricsDocument],
    tables: Sequence[pd.DataFrame],
    curves: Sequence[pd.DataFrame],
) -> None:
    """metrics.json and its halves, metrics.parquet (with the means over categories) and curves.parquet."""
    for subset, document in documents.items():
        write_json_file(out / METRICS_FILES[subset], document.model_dump(mode="json"))
    means = [metrics_table({}, document.mean, subset=subset) for subset, document in documents.items()]
    write_table_file(out / "metrics.parquet", [*tables, *means], METRICS_TABLE)
    write_table_file(out / "curves.parquet", curves, CURVES)


def copy_artifact(store: ArtifactStore, manifest: Manifest, target: Path) -> None:
    """A checked artifact under a name for people: a hard link where the file system allows it, else a copy."""
    source = store.verify(manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, temporary)
        temporary.replace(target)


def write_json_file(path: Path, value: Any) -> None:
    """Write a JSON value for people: indented, keys in order of writing."""
    write_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_table_file(path: Path, frames: Sequence[pd.DataFrame], schema: pa.Schema) -> None:
    """Write frames one after the other as one Parquet file in this schema."""
    write_file(path, parquet_content(frames, schema))


def safe_name(name: str) -> str:
    """A file name for any category or client id; different names stay different by a few digits of their SHA-256."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
