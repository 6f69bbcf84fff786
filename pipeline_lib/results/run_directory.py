"""The run directory: everything that one run leaves for people, and a model that `fedpatch score` can use.

config.yaml, environment.json, metrics.json (all of test), metrics_development.json and metrics_report.json (its
halves), metrics.parquet, curves.parquet, scores.parquet, partition.parquet, partition_stats.json, validation.json,
validation.txt, groups.parquet (with dataset.group), calibration.parquet (out-of-fold scores of normal training images),
manifests.json, banks/<bank>.npz, model.json, report.html, colour_scales.json; maps/ where asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import BankManifest, PreparedDataset
from data_contracts.results import METRICS_FILES, MetricsDocument
from data_contracts.settings import RUNS, BackboneSettings, Reading
from data_contracts.tables import CURVES, IMAGE_SCORES, METRICS_TABLE, calibration_schema
from data_contracts.validation import ValidationReport
from pipeline_lib.configuration.files import write_config
from pipeline_lib.configuration.hardware import describe_environment
from pipeline_lib.dataset.validation import render_validation_text
from pipeline_lib.metrics.category import metrics_table
from pipeline_lib.models.model_file import GROUPS_FILE, SCORES_FILE
from pipeline_lib.models.saved_model import bank_file, write_model_file
from pipeline_lib.storage.artifact_store import ArtifactStore, sha256_of_file, write_file
from pipeline_lib.storage.files import copy_artifact, write_json_file, write_table_file

CALIBRATION_FILE = "calibration.parquet"
RESULT_FILE = "result.json"
VALIDATION_FILE = "validation.json"


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
    path = RUNS / f"{name}-{stamp}"
    number = 1
    while path.exists():
        number += 1
        path = RUNS / f"{name}-{stamp}-{number}"
    return path


def write_run_directory(
    out: Path,
    store: ArtifactStore,
    config: ExperimentConfig,
    backbone: BackboneSettings,
    banks: Sequence[BankManifest],
    figures: RunFigures,
    reading: Reading,
) -> None:
    """Write what every run leaves but the report. Files that exist are replaced, each whole."""
    out.mkdir(parents=True, exist_ok=True)
    write_config(config, out / "config.yaml")
    write_json_file(out / "environment.json", describe_environment(store))
    write_metrics_files(out, figures.documents, figures.tables, [figures.curves])
    write_table_file(out / SCORES_FILE, [figures.scores], IMAGE_SCORES)
    write_model(out, store, config, backbone, banks, figures.calibration, reading)


def write_dataset_files(out: Path, store: ArtifactStore, dataset: PreparedDataset) -> None:
    """Write the index, what the validation found, and who held what."""
    copy_artifact(store, dataset.partition.table, out / "partition.parquet")
    copy_artifact(store, dataset.partition.stats, out / "partition_stats.json")
    copy_artifact(store, dataset.validation, out / VALIDATION_FILE)
    copy_artifact(store, dataset.indexed.index, out / "dataset_index.parquet")
    if dataset.indexed.groups is not None:
        copy_artifact(store, dataset.indexed.groups, out / GROUPS_FILE)
    report = ValidationReport.model_validate(store.read_json(dataset.validation))
    write_file(out / "validation.txt", render_validation_text(report).encode())


def write_model(
    out: Path,
    store: ArtifactStore,
    config: ExperimentConfig,
    backbone: BackboneSettings,
    banks: Sequence[BankManifest],
    calibration: pd.DataFrame,
    reading: Reading,
) -> None:
    """What `fedpatch score` needs: model.json, banks/<bank>.npz and, where there are scores, calibration.parquet."""
    for bank in banks:
        copy_artifact(store, bank, out / bank_file(bank.bank))
    more = {}
    if len(calibration):
        write_table_file(out / CALIBRATION_FILE, [calibration], calibration_schema(calibration.columns))
        more["calibration"] = {
            "file": CALIBRATION_FILE,
            "sha256": sha256_of_file(out / CALIBRATION_FILE),
            "target_false_alarm_rate": config.decision.target_false_alarm_rate,
        }
        if config.decision.promise != "rate":
            more["calibration"]["promise"] = config.decision.promise
    write_model_file(out, backbone, {bank.bank: bank.model_dump() for bank in banks}, reading, **more)


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
