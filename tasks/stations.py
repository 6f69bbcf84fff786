"""Tasks of a federation across machines: what crosses the shared place, and the pooled figures."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prefect import task
from prefect.artifacts import create_table_artifact

from data_contracts.config import ExperimentConfig, canonical_hash
from data_contracts.errors import ConfigError, UploadError
from data_contracts.exchange import FiguresManifest, Publication, Slot
from data_contracts.manifests import BankManifest, ClientImages, Manifest, ScoredCategory
from data_contracts.results import CategoryMetrics, FederationSummary, MetricsDocument
from data_contracts.rounds import GLOBAL_BANK
from data_contracts.stages import EvaluationSettings, Place
from data_contracts.tables import CLIENT_IMAGES
from pipeline_lib import evaluation, pooled_figures, run_directory
from pipeline_lib.exchange import Exchange
from tasks.stage import open_store, stage


def open_exchange() -> Exchange:
    """The shared place of this machine, `$FEDPATCH_EXCHANGE`; the mount points of machines may differ."""
    url = os.environ.get("FEDPATCH_EXCHANGE")
    if not url:
        raise ConfigError(
            "FEDPATCH_EXCHANGE is not set; give the worker the shared place, a directory or s3://bucket/prefix"
        )
    return Exchange(url)


def figures_hash(config_hash: str, banks: tuple[BankManifest, ...]) -> str:
    """What figures depend on beside a station's own images: they are refused where the banks are others by now."""
    return canonical_hash([config_hash, *sorted(bank.sha256 for bank in banks)])[:16]


@stage("take-own-images", run_name="own-images-{station}")
def take_own_images(index: Manifest, station: str, place: Place) -> ClientImages:
    """All readable training images of the station's own data directory."""
    store = open_store(place)
    table = store.read_table(index)
    rows = table.loc[(table.split == "train") & (table.problem == ""), CLIENT_IMAGES.names].reset_index(drop=True)
    if rows.empty:
        raise UploadError(f"station {station} has no readable training images")
    images = store.write_table("client_images", rows, CLIENT_IMAGES)
    return ClientImages(client_id=station, images=images, categories=tuple(sorted(set(rows.category))))


@stage("count-figures", run_name="count-{category}")
def count_figures(
    test_images: Manifest,
    truth_sha256: str,
    scored: ScoredCategory,
    category: str,
    settings: EvaluationSettings,
    on_bad_image: str,
    place: Place,
) -> FiguresManifest:
    """What the station's test images of one category add to the pooled figures."""
    store = open_store(place)
    rows = store.read_table(test_images)
    loaders, scores = evaluation.stored_maps(
        rows, store.read_arrays(scored.maps)["maps"], store.read_table(scored.scores), settings.smoothing_sigma
    )
    images, _ = evaluation.evaluation_images(
        rows, place.data_root, loaders, scores, settings, on_bad_image=on_bad_image
    )
    counted = pooled_figures.station_figures(images)
    written = store.write_arrays("station_figures", counted.to_arrays(), rows=len(images))
    return FiguresManifest(**written.model_dump(), category=category)


@task(name="publish", task_run_name="publish-{publication.slot.kind}")
def publish(publication: Publication, place: Place) -> int:
    """Put it into the shared place; returns the bytes that had to be sent."""
    return open_exchange().publish(publication, open_store(place))


@task(name="fetch", task_run_name="fetch-{slot.kind}-{slot.sender}")
def fetch(slot: Slot, place: Place, banks: tuple[str, ...] | None = None) -> Publication:
    """Verify what the sender published and copy it into this machine's store; of banks only those named and the global.

    Raises UploadError with the reason of a refusal.
    """

    def wanted(manifest: Manifest) -> bool:
        return not isinstance(manifest, BankManifest) or banks is None or manifest.bank in (*banks, GLOBAL_BANK)

    return open_exchange().fetch(slot, open_store(place), wanted=wanted)


@task(name="open-round")
def open_round(run_id: str) -> None:
    """Uploads are taken (again)."""
    open_exchange().reopen(run_id, 1)


@task(name="close-round")
def close_round(run_id: str, reason: str) -> None:
    """Uploads are refused from now on, with this reason."""
    open_exchange().close(run_id, 1, reason)


@task(name="pool-figures")
def pool_figures(
    config: ExperimentConfig,
    figures: Mapping[str, tuple[FiguresManifest, ...]],
    banks: list[BankManifest],
    failed: dict[str, str],
    refused: dict[str, str],
    warnings: list[str],
    place: Place,
) -> str:
    """metrics.json over all stations' test images, and the banks, in the run directory, whose path is returned."""
    store = open_store(place)
    by_category: dict[str, list[pooled_figures.StationFigures]] = {}
    for station, manifests in figures.items():
        for manifest in manifests:
            counted = pooled_figures.StationFigures.from_arrays(store.read_arrays(manifest), sender=station)
            by_category.setdefault(manifest.category, []).append(counted)
    limits = config.evaluation.fpr_limits
    pooled = {
        category: CategoryMetrics(**pooled_figures.pool_figures(by_category[category], fpr_limits=limits).model_dump())
        for category in sorted(by_category)
    }
    document: MetricsDocument = evaluation.metrics_document(
        pooled, experiment=config.name, config_hash=config.config_hash(), seed=config.seed
    )
    document.federation = FederationSummary(
        mode="federated",
        failed_clients=failed,
        refused_uploads=refused,
        bank_rows=sum(bank.rows for bank in banks),
        bank_rows_by_category={bank.bank: bank.rows for bank in banks},
    )
    document.warnings = warnings
    out = (config.runtime.out or run_directory.default_run_directory(config.name)).expanduser().absolute()
    for bank in banks:
        run_directory.copy_artifact(store, bank, out / "banks" / f"{run_directory.safe_name(bank.bank)}.npz")
    run_directory.write_json_file(out / "metrics.json", document.model_dump(mode="json"))
    return str(out)


@task(name="show-stations")
def show_stations(rows: list[dict[str, str | int]]) -> None:
    """A table of the stations on the run's page."""
    create_table_artifact(rows, key="stations", description="What each station sent, and why another is missing")
