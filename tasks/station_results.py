"""Tasks that end a federation across machines: pooled figures, run directory, what the UI shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import task
from prefect.artifacts import create_table_artifact

from data_contracts.config import ExperimentConfig
from data_contracts.exchange import StationResults
from data_contracts.federation import Federation
from data_contracts.manifests import ClientUploads, ExperimentResult
from data_contracts.settings import BackboneSettings, Place
from pipeline_lib.report import finished_run
from pipeline_lib.results import run_directory, tables
from pipeline_lib.stations import calibration as station_calibration
from pipeline_lib.stations import figures as pooled_figures
from pipeline_lib.stations import results as station_results
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import manifests_in
from tasks.stage import open_store

StationFigures = pooled_figures.StationFigures


@task(name="finish-stations")
def finish_stations(
    config: ExperimentConfig,
    backbone: BackboneSettings,
    federation: Federation,
    results: Sequence[Mapping[str, StationResults]],
    uncounted: Mapping[str, str],
    run_id: str,
    timings_s: dict[str, float],
    place: Place,
) -> ExperimentResult:
    """End a run with the pooled figures of all stations' test images, and with their thresholds.

    results: for each round, what each station counted of its banks; uncounted: station -> why it did not. Raises
    UploadError, naming the station, for figures that cannot be such.
    """
    store = open_store(place)
    calibration = station_results.joined_calibration(
        [
            station_calibration.from_arrays(store.read_arrays(one.calibration), sender=station)
            for station, one in sorted(results[-1].items())
            if one.calibration is not None
        ]
    )
    summary = run_directory.federation_summary("federated", federation, None)
    counted = [_by_category(store, one) for one in results]
    figures = station_results.pool_stations(config, counted, calibration, summary)
    document = figures.documents["all"]
    document.warnings += federation.incidents
    document.warnings += [f"station {station} is {cause}" for station, cause in uncounted.items()]
    document.warnings += tables.choice_warnings(config, summary)
    document.timings_s = timings_s
    sent = [one for of_round in results for one in of_round.values()]
    return finished_run.finish_run(
        finished_run.FinishedRun(
            run_id=f"{run_id}-coordinator",
            out=run_directory.run_directory(config),
            config=config,
            backbone=backbone,
            federation=federation,
            figures=figures,
            used=list(manifests_in([one.model_dump() for one in sent])),
        ),
        store,
    )


def _by_category(store: ArtifactStore, results: Mapping[str, StationResults]) -> dict[str, dict[str, StationFigures]]:
    found: dict[str, dict[str, StationFigures]] = {}
    for station, one in results.items():
        for manifest in one.figures:
            counted = StationFigures.from_arrays(store.read_arrays(manifest), sender=station)
            found.setdefault(manifest.category, {})[station] = counted
    return found


def show_stations(stations: Sequence[str], uploads: Sequence[ClientUploads], missing: Mapping[str, str]) -> None:
    """A table of the stations on the run's page, called by the flow itself: what each sent, or why it is missing."""
    sent = {client.client_id: client.uploads for client in uploads}
    rows = []
    for station in stations:
        own = sent.get(station, ())
        first = {upload.category: upload for upload in reversed(own)}.values()
        rows.append(
            {
                "station": station,
                "training images": sum(upload.n_images for upload in first),
                "rows sent": sum(upload.rows for upload in own),
                "bytes sent": sum(upload.size_bytes for upload in own),
                "missing": missing.get(station, ""),
            }
        )
    create_table_artifact(
        key="stations", table=rows, description="What each station sent over all rounds, and why another is missing"
    )
