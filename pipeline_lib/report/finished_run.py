"""Ending a run, one way for experiments and stations: its directory, its report, and what the store keeps for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data_contracts.config import ExperimentConfig
from data_contracts.federation import Federation
from data_contracts.manifests import ExperimentResult, Manifest, PreparedDataset, ScoredCategory
from data_contracts.settings import AS_EARLIER, BackboneSettings, Reading
from data_contracts.validation import ValidationReport
from pipeline_lib.configuration.hardware import describe_environment
from pipeline_lib.models.model_file import COLOUR_SCALES_FILE
from pipeline_lib.report.gallery import CategoryGallery
from pipeline_lib.report.page import render_report
from pipeline_lib.report.record import RunRecord
from pipeline_lib.results import rounds, run_directory
from pipeline_lib.storage import files, retention
from pipeline_lib.storage.artifact_store import ArtifactStore, write_file
from pipeline_lib.storage.references import manifests_in

HEAT_MAPS = "heat_maps"


@dataclass(frozen=True)
class FinishedRun:
    """A run whose figures are there. Of stations, which keep their images, `dataset` and all after it are empty."""

    run_id: str  # its registration's name: what registers under the same replaces it
    out: Path
    config: ExperimentConfig
    backbone: BackboneSettings
    federation: Federation
    figures: run_directory.RunFigures
    used: Sequence[Manifest]  # what the store keeps for it, beside what the federation and the data set refer to
    dataset: PreparedDataset | None = None
    scored: tuple[ScoredCategory, ...] = ()
    galleries: Sequence[CategoryGallery] = ()
    reading: Reading = AS_EARLIER  # how image files became pixels


def finish_run(run: FinishedRun, store: ArtifactStore) -> ExperimentResult:
    """Write the run directory and the report, and register what the run refers to."""
    federation, out = run.federation, run.out
    run_directory.write_run_directory(out, store, run.config, run.backbone, federation.banks, run.figures, run.reading)
    rounds.write_rounds(out, store, federation.rounds)
    _write_report(run, store)
    metrics = store.write_json("metrics_document", run.figures.documents["all"].model_dump(mode="json"))
    result = ExperimentResult(
        experiment=run.config.name,
        run_directory=str(out),
        metrics=metrics,
        banks=tuple(federation.banks),
        failed_clients=federation.failed,
        scored=run.scored,
    )
    files.write_json_file(out / run_directory.RESULT_FILE, result.model_dump(mode="json"))
    parts = [*federation.rounds, *federation.accepted, *federation.alone, *([run.dataset] if run.dataset else [])]
    used = manifests_in([part.model_dump() for part in parts])
    of_clients = [*federation.features.values(), *federation.calibration, *federation.coverage.values()]
    retention.register_run(store, run.run_id, [*used, *of_clients, *run.used, metrics], run_directory=str(out))
    return result


def _write_report(run: FinishedRun, store: ArtifactStore) -> None:
    """report.html, the galleries' sheets as pictures of their own, and the scales of their colours where the test set
    has defects: without any, a scale ends where the good images do."""
    dataset = run.dataset
    record = RunRecord(
        config=run.config,
        backbone=run.backbone,
        environment=describe_environment(store),
        documents=run.figures.documents,
        curves=run.figures.curves,
        scores=run.figures.scores,
        validation=ValidationReport.model_validate(store.read_json(dataset.validation)) if dataset else None,
        banks=run.federation.banks,
        partition_stats=store.read_json(dataset.partition.stats) if dataset else {},
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_file(run.out / "report.html", render_report(record, run.galleries).encode())
    for old in (run.out / HEAT_MAPS).glob("*.jpg"):
        old.unlink()
    scales = {
        gallery.category: gallery.scale
        for gallery in run.galleries
        if gallery.counts["hits"] + gallery.counts["misses"]
    }
    files.write_json_file(run.out / COLOUR_SCALES_FILE, scales)
    for gallery in run.galleries:
        if gallery.sheet:
            name = f"{files.safe_name(gallery.category)}.jpg"
            write_file(run.out / HEAT_MAPS / name, gallery.sheet)
