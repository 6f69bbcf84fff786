"""Tasks that end a run: the run directory, the report, and what the Prefect UI shows."""

from __future__ import annotations

import uuid
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from data_contracts.config import ExperimentConfig
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
from data_contracts.stages import BackboneSettings, Place
from pipeline_lib import result_tables, run_directory, store_retention
from tasks.caching import manifests_in
from tasks.stage import open_store


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
    features: list[Manifest],
    timings_s: dict[str, float],
    place: Place,
) -> ExperimentResult:
    """Write the run directory."""
    store = open_store(place)
    out = (config.runtime.out or run_directory.default_run_directory(config.name)).expanduser().absolute()
    federation = run_directory.federation_summary(config.federated.mode, uploads, failed, partition, banks)
    warnings = result_tables.run_warnings(indexed, backbone, failed, partition.skipped_clients)
    documents = run_directory.build_documents(config, measured, store, federation, timings_s, warnings)
    run_directory.write_run_directory(
        out, store, config, backbone, indexed, validation, partition, banks, scored, measured, documents
    )
    metrics = store.write_json("metrics_document", documents["all"].model_dump(mode="json"))
    result = ExperimentResult(
        experiment=config.name, run_directory=str(out), metrics=metrics, banks=tuple(banks), failed_clients=failed
    )
    run_directory.write_json_file(out / "result.json", result.model_dump(mode="json"))
    used = list(
        manifests_in([m.model_dump() for m in (indexed, validation, partition, *uploads, *banks, *scored, *measured)])
    )
    store_retention.register_run(store, uuid.uuid4().hex, [*used, metrics, *features], run_directory=str(out))
    return result


@task(name="publish-clients")
def publish_clients(partition: Partition, uploads: list[ClientUploads], failed: dict[str, str], place: Place) -> None:
    """The clients as a table in the UI: what each had and sent, or why it failed."""
    summary = run_directory.federation_summary("", uploads, failed, partition, [])
    create_table_artifact(
        key="clients",
        table=result_tables.client_rows(summary),
        description="What each client had and sent. Failed clients are listed with their cause.",
    )


@task(name="publish-results")
def publish_results(result: ExperimentResult, place: Place) -> None:
    """The metrics as a table in the UI, and where everything lies."""
    document = MetricsDocument.model_validate(open_store(place).read_json(result.metrics))
    create_table_artifact(
        key="results",
        table=result_tables.metric_rows(document),
        description=f"{document.experiment}: metrics in per cent with 95 % intervals, on all test images.",
    )
    lines = [f"Run directory: `{result.run_directory}`", ""]
    lines += [f"- {warning}" for warning in document.warnings]
    create_markdown_artifact(key="summary", markdown="\n".join(lines), description=Path(result.run_directory).name)
