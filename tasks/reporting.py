"""Tasks that end a run: the run directory, the report, and what the Prefect UI shows."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from data_contracts.config import ExperimentConfig
from data_contracts.local import LocalClient
from data_contracts.manifests import (
    BankManifest,
    ClientUploads,
    ExperimentResult,
    IndexedDataset,
    Manifest,
    MeasuredCategory,
    Partition,
    ScoredCategory,
)
from data_contracts.results import MetricsDocument
from data_contracts.rounds import FederationRound
from data_contracts.stages import BackboneSettings, Place
from data_contracts.tables import CALIBRATION_SCORES, CURVES, IMAGE_SCORES
from data_contracts.validation import ValidationReport
from pipeline_lib import (
    bank_coverage,
    bank_provenance,
    decisions,
    local_results,
    report,
    result_tables,
    round_files,
    run_directory,
    run_samples,
    run_summary,
    saved_maps,
    store_retention,
)
from pipeline_lib.artifact_store import ArtifactStore, write_file
from pipeline_lib.hardware import describe_environment
from tasks.caching import manifests_in
from tasks.galleries import draw_galleries
from tasks.stage import artifact_key, open_store

HEAT_MAPS = "heat_maps"
MAPS = "maps"
SUMMARY = "summary"
MAX_UI_IMAGES = 6
MAX_UI_IMAGE_BYTES = 700_000  # as a data: URI a third more; the UI takes images below 1 MB


@task(name="finish-run")
def finish_run(
    config: ExperimentConfig,
    backbone: BackboneSettings,
    indexed: IndexedDataset,
    validation: Manifest,
    partition: Partition,
    uploads: list[ClientUploads],
    failed: dict[str, str],
    banks: list[BankManifest],
    scored: list[ScoredCategory],
    measured: list[MeasuredCategory],
    calibration: list[Manifest],
    features: list[Manifest],
    timings_s: dict[str, float],
    place: Place,
    *,
    coverage: dict[str, Manifest] | None = None,
    rounds: list[FederationRound] | None = None,
    measured_rounds: list[list[MeasuredCategory]] | None = None,
    refused: dict[str, str] | None = None,
    incidents: list[str] | None = None,
    local: list[LocalClient] | None = None,
) -> ExperimentResult:
    """Write the run directory, with the report.

    `coverage`: client -> its patches' distances to the final bank; `measured_rounds`: what the banks of all rounds but
    the last scored; `incidents`: what is missing of clients that are in the banks; `local`: clients that train alone,
    in place of `banks`, `scored` and `measured`.
    """
    store = open_store(place)
    out = (config.runtime.out or run_directory.default_run_directory(config.name)).expanduser().absolute()
    federation = run_directory.federation_summary(
        config.federated.mode,
        uploads,
        failed,
        partition,
        banks,
        refused=refused,
        rounds=rounds or [],
        pixel_bytes=run_directory.pixel_bytes_by_client(partition, store),
    )
    covered = {client: store.read_json(manifest) for client, manifest in (coverage or {}).items()}
    federation = bank_coverage.with_coverage(federation, covered)
    warnings = result_tables.run_warnings(
        indexed,
        backbone,
        failed,
        partition.skipped_clients,
        incidents or [],
        search_recall={category.category: category.search_recall for category in scored},
    )
    warnings += result_tables.choice_warnings(config, federation)
    documents = run_directory.build_documents(config, measured, store, federation, timings_s, warnings)
    round_files.fill_round_means(documents, measured_rounds or [], store)
    scores = _joined(store, [category.scores for category in scored], IMAGE_SCORES)
    calibrated = _joined(store, calibration, CALIBRATION_SCORES)
    decisions.add_decisions(documents, calibrated, scores, config.decision.target_false_alarm_rate)
    if local:
        local_results.fill_local_results(documents, local, store, config.decision.target_false_alarm_rate)
        local_results.write_local_files(out, store, local)
    unknown_names = result_tables.name_warnings(config, indexed.categories, documents["all"])
    for document in documents.values():
        document.warnings += unknown_names
    run_directory.write_run_directory(
        out, store, config, backbone, indexed, validation, partition, banks, scored, measured, documents, calibrated
    )
    provenance: dict[str, pd.DataFrame] = {}
    if config.federated.mode == "centralized":
        provenance = bank_provenance.write_bank_provenance(out, store, uploads, banks)
    _save_maps(config, out / MAPS, indexed, scored, store)
    round_files.write_rounds(out, store, rounds or [])
    run_samples.write_samples(out, store, measured, local or [])
    galleries, drawn = draw_galleries(config, indexed, scored, banks, features, provenance, store, place)
    record = report.RunRecord(
        config=config,
        backbone=backbone,
        environment=describe_environment(),
        documents=documents,
        curves=_joined(store, [category.curves for category in measured], CURVES),
        scores=scores,
        validation=ValidationReport.model_validate(store.read_json(validation)),
        banks=banks,
        partition_stats=store.read_json(partition.stats),
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_file(out / "report.html", report.render_report(record, galleries).encode())
    for old in (out / HEAT_MAPS).glob("*.jpg"):
        old.unlink()
    for gallery in galleries:
        if gallery.sheet:
            write_file(out / HEAT_MAPS / f"{run_directory.safe_name(gallery.category)}.jpg", gallery.sheet)
    metrics = store.write_json("metrics_document", documents["all"].model_dump(mode="json"))
    result = ExperimentResult(
        experiment=config.name,
        run_directory=str(out),
        metrics=metrics,
        banks=tuple(banks),
        failed_clients=failed,
        scored=tuple(scored),
    )
    run_directory.write_json_file(out / run_directory.RESULT_FILE, result.model_dump(mode="json"))
    parts = (indexed, validation, partition, *uploads, *banks, *scored, *measured, *(rounds or []), *(local or []))
    used = list(manifests_in([part.model_dump() for part in parts]))
    store_retention.register_run(
        store,
        uuid.uuid4().hex,
        [*used, metrics, *calibration, *(coverage or {}).values(), *features, *drawn],
        run_directory=str(out),
    )
    return result


def _save_maps(
    config: ExperimentConfig, out: Path, indexed: IndexedDataset, scored: list[ScoredCategory], store: ArtifactStore
) -> None:
    """The anomaly maps as files, where `evaluation.save_maps` asks for them."""
    map_format = config.evaluation.save_maps
    if map_format == "none":
        return
    index = store.read_table(indexed.index)
    for category in scored:
        grid_maps = store.read_arrays(category.maps)["maps"]
        maps = saved_maps.stored_image_maps(grid_maps, store.read_table(category.scores), index)
        sigma_px = config.inference.smoothing_sigma
        saved_maps.write_category_maps(out, category.category, maps, map_format=map_format, sigma_px=sigma_px)


def _joined(store: ArtifactStore, manifests: list[Manifest], schema: pa.Schema) -> pd.DataFrame:
    if not manifests:
        return pd.DataFrame(columns=schema.names)
    return pd.concat([store.read_table(manifest) for manifest in manifests], ignore_index=True)


# What the UI shows of a run is made by the flow itself, outside any task: an artifact belongs to the task that made it,
# and the run's page lists those of tasks apart, with "None" for the run.


def publish_clients(partition: Partition, uploads: list[ClientUploads], failed: dict[str, str]) -> None:
    """The clients as a table in the UI: what each had and sent, or why it failed."""
    summary = run_directory.federation_summary("", uploads, failed, partition, [])
    create_table_artifact(
        key="clients",
        table=result_tables.client_rows(summary),
        description="What each client had and sent. Failed clients are listed with their cause.",
    )


def publish_results(result: ExperimentResult, place: Place) -> None:
    """What came of a run, in the UI: `summary`, which has all in order, and tables and heat maps by themselves."""
    document = MetricsDocument.model_validate(open_store(place).read_json(result.metrics))
    create_table_artifact(
        key="results",
        table=result_tables.metric_rows(document),
        description=f"{document.experiment}: metrics in per cent with 95 % intervals, on all test images.",
    )
    if document.local_clients:
        create_table_artifact(
            key="local-clients",
            table=result_tables.local_rows(document),
            description="What each client scores alone, in per cent, on all test images.",
        )
    if document.federation.rounds:
        create_table_artifact(
            key="rounds",
            table=result_tables.round_rows(document.federation),
            description="Convergence over the rounds: metrics in per cent, means over categories, all test images.",
        )
    directory = Path(result.run_directory)
    sheets = sorted((directory / HEAT_MAPS).glob("*.jpg"))
    _publish_heat_maps(sheets)
    create_markdown_artifact(
        key=SUMMARY,
        markdown=run_summary.run_summary(document, directory, sheets),
        description=f"{document.experiment}: result, clients, heat maps, report",
    )


def _publish_heat_maps(sheets: list[Path]) -> None:
    """The first few sheets of heat maps as images in the UI; a larger one stays in the run directory alone."""
    small = [path for path in sheets if path.stat().st_size <= MAX_UI_IMAGE_BYTES]
    for path in small[:MAX_UI_IMAGES]:
        create_markdown_artifact(
            key=artifact_key(f"heat-maps-{path.stem}"),
            markdown=f"![heat maps of {path.stem}]({run_summary.jpeg_uri(path)})",
            description=f"{path.stem}: image, anomaly map and overlay of the first hit, miss and false alarm there is.",
        )
