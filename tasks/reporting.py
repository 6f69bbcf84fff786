"""Tasks that end a run: the run directory, the report, and what the Prefect UI shows."""

from __future__ import annotations

import uuid
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from data_contracts.config import ExperimentConfig
from data_contracts.federation import Federation
from data_contracts.manifests import ExperimentResult, MeasuredBanks, Partition, PreparedDataset
from data_contracts.results import MetricsDocument
from data_contracts.settings import BackboneSettings, Place
from pipeline_lib.report import finished_run
from pipeline_lib.results import documents, experiment, run_directory, tables
from pipeline_lib.results import summary as run_summary
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import manifests_in
from tasks.galleries import draw_galleries
from tasks.progress import artifact_key
from tasks.stage import step

SUMMARY = "summary"
MAX_UI_IMAGES = 6
MAX_UI_IMAGE_BYTES = 700_000  # as a data: URI a third more; the UI takes images below 1 MB


@step("finish-run")
def finish_run(
    config: ExperimentConfig,
    backbone: BackboneSettings,
    dataset: PreparedDataset,
    federation: Federation,
    measured: list[MeasuredBanks],
    timings_s: dict[str, float],
    place: Place,
) -> ExperimentResult:
    """Write the run directory, with the report.

    measured: what the banks of each round score; empty for clients that train alone.
    """
    store = ArtifactStore(place.store)
    out = run_directory.run_directory(config)
    last = measured[-1] if measured else MeasuredBanks()
    figures = experiment.experiment_figures(store, config, backbone, dataset, federation, measured, timings_s)
    origins = experiment.write_experiment_files(out, store, config, dataset, federation, last)
    features = [*federation.features.values(), *last.features]
    thresholds = {name: values.threshold for name, values in figures.documents["all"].categories.items()}
    galleries, drawn = draw_galleries(
        config, dataset.indexed, last.scored, federation.banks, features, origins, store, place, thresholds
    )
    return finished_run.finish_run(
        finished_run.FinishedRun(
            run_id=uuid.uuid4().hex,
            out=out,
            config=config,
            backbone=backbone,
            federation=federation,
            figures=figures,
            reading=dataset.indexed.reading,
            used=[*manifests_in([one.model_dump() for one in measured]), *drawn],
            dataset=dataset,
            scored=last.scored,
            galleries=galleries,
        ),
        store,
    )


# What the UI shows of a run is made by the flow itself, outside any task: an artifact belongs to the task that made it,
# and the run's page lists those of tasks apart, with "None" for the run. The UI shows keys as titles: where a run has
# several experiments, `part` says which one it is of.


def publish_clients(partition: Partition, federation: Federation, *, part: str = "") -> None:
    """The clients as a table in the UI: what each had and sent, or why it failed."""
    summary = documents.federation_summary("", federation, partition)
    create_table_artifact(
        key=_key(part, "clients"),
        table=tables.client_rows(summary),
        description="What each client had and sent. Failed clients are listed with their cause.",
    )


def publish_results(result: ExperimentResult, place: Place, *, part: str = "") -> str:
    """What came of a run, in the UI: `summary`, which has all in order, and tables and heat maps by themselves.

    Returns the headline figures in one line, means over categories in per cent.
    """
    document = MetricsDocument.model_validate(ArtifactStore(place.store).read_json(result.metrics))
    create_table_artifact(
        key=_key(part, "results"),
        table=tables.metric_rows(document),
        description=f"{document.experiment}: metrics in per cent with 95 % intervals, on all test images.",
    )
    if document.local_clients:
        create_table_artifact(
            key=_key(part, "local-clients"),
            table=tables.local_rows(document),
            description="What each client scores alone, in per cent, on all test images.",
        )
    if document.federation.rounds:
        create_table_artifact(
            key=_key(part, "rounds"),
            table=tables.round_rows(document.federation),
            description="Convergence over the rounds: metrics in per cent, means over categories, all test images.",
        )
    directory = Path(result.run_directory)
    sheets = sorted((directory / finished_run.HEAT_MAPS).glob("*.jpg"))
    _publish_heat_maps(sheets, part)
    create_markdown_artifact(
        key=_key(part, SUMMARY),
        markdown=run_summary.run_summary(document, directory, sheets),
        description=f"{document.experiment}: result, clients, heat maps, report",
    )
    get_run_logger().info("run directory: %s", directory)  # what waits with --watch has nothing else
    return tables.headline_text(document)


def _key(part: str, what: str) -> str:
    return artifact_key(f"{part} {what}")


def _publish_heat_maps(sheets: list[Path], part: str) -> None:
    """The first few sheets of heat maps as images in the UI; a larger one stays in the run directory alone."""
    small = [path for path in sheets if path.stat().st_size <= MAX_UI_IMAGE_BYTES]
    for path in small[:MAX_UI_IMAGES]:
        create_markdown_artifact(
            key=_key(part, f"heat-maps-{path.stem}"),
            markdown=f"![heat maps of {path.stem}]({run_summary.jpeg_uri(path)})",
            description=f"{path.stem}: image, anomaly map and overlay of the first hit, miss and false alarm there is.",
        )
