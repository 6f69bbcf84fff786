"""Tasks of a federation across machines: what a station makes, what crosses the shared place, and what ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from data_contracts.config import ExperimentConfig, canonical_hash
from data_contracts.errors import ArtifactError, UploadError
from data_contracts.exchange import FiguresManifest, Publication, Slot, StationResults
from data_contracts.federation import Federation, FederationRound, Refusal
from data_contracts.manifests import (
    GLOBAL_BANK,
    BankManifest,
    ClientImages,
    ClientUploads,
    ExperimentResult,
    Manifest,
    ScoredCategory,
)
from data_contracts.settings import BackboneSettings, EvaluationSettings, Place, Reading
from data_contracts.tables import CLIENT_IMAGES
from pipeline_lib.metrics import evaluation
from pipeline_lib.report import finished_run
from pipeline_lib.results import documents, run_directory, tables
from pipeline_lib.stations import calibration as station_calibration
from pipeline_lib.stations import exchange as shared_place
from pipeline_lib.stations import figures as pooled_figures
from pipeline_lib.stations import results as station_results
from pipeline_lib.storage import retention
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import manifests_in
from pipeline_lib.upload import volume
from tasks.stage import open_store, stage, step

StationFigures = pooled_figures.StationFigures


def require_exchange() -> None:
    """Raise ConfigError where this worker does not know the shared place."""
    shared_place.open_exchange()


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
        raise UploadError(f"station {station} has no readable training images; is its disk mounted?")
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
    maps, scores_table = store.read_arrays(scored.maps)["maps"], store.read_table(scored.scores)
    loaders, scores = evaluation.stored_maps(rows, maps, scores_table, settings.smoothing_sigma, scored.cells)
    images, _ = evaluation.evaluation_images(
        rows, place.data_root, loaders, scores, settings, on_bad_image=on_bad_image
    )
    counted = pooled_figures.station_figures(images)
    written = store.write_arrays("station_figures", counted.to_arrays(), rows=len(images))
    return FiguresManifest(**written.model_dump(), category=category)


@stage("pack-calibration")
def pack_calibration(scores: Manifest, place: Place) -> Manifest:
    """The station's calibration scores as they are handed over."""
    store = open_store(place)
    table = store.read_table(scores)
    return store.write_arrays("station_calibration", station_calibration.to_arrays(table), rows=len(table))


@step("publish", run_name="publish-{publication.slot.kind}")
def publish(publication: Publication, place: Place) -> int:
    """Put it into the shared place; returns the bytes that had to be sent."""
    return shared_place.open_exchange().publish(publication, open_store(place))


def say_sent(sent: ClientUploads) -> None:
    """In the log of the station's run, called by the flow itself: the bytes of its rows against those of its images."""
    log = get_run_logger()
    upload_bytes = sum(upload.size_bytes for upload in sent.uploads)
    image_bytes = sum(upload.raw_image_bytes for upload in sent.uploads)
    log.info("station %s sent its rows, %s", sent.client_id, volume.sent_text(upload_bytes, image_bytes))
    if warning := volume.more_than_images({sent.client_id: (upload_bytes, image_bytes)}):
        log.warning("%s", warning)


@step("fetch", run_name="fetch-{slot.kind}-{slot.sender}")
def fetch(slot: Slot, place: Place, banks: tuple[str, ...] | None = None) -> Publication:
    """Verify what the sender published and copy it into this machine's store; of banks only those named and the global.

    Raises UploadError with the reason of a refusal.
    """

    def wanted(manifest: Manifest) -> bool:
        return not isinstance(manifest, BankManifest) or banks is None or manifest.bank in (*banks, GLOBAL_BANK)

    return shared_place.open_exchange().fetch(slot, open_store(place), wanted=wanted)


@step("fetch-uploads", run_name="fetch-uploads-{slot.sender}")
def fetch_uploads(slot: Slot, place: Place) -> tuple[ClientUploads, list[Refusal]]:
    """Copy what a station sent into this machine's store: (what it published, what of it is refused)."""
    store, exchange = open_store(place), shared_place.open_exchange()
    try:
        publication = exchange.read(slot)
    except UploadError as error:
        nothing = ClientUploads(client_id=slot.sender, uploads=(), provenance=())
        return nothing, [Refusal(slot.sender, None, str(error))]
    refusals = []
    for upload in publication.uploads:
        try:
            exchange.copy(slot, upload, store)
        except UploadError as error:
            refusals.append(Refusal(slot.sender, upload.category, str(error)))
    sent = ClientUploads(
        client_id=slot.sender,
        uploads=publication.uploads,
        provenance=(),
        manifest_bytes=len(publication.file_content()),
    )
    return sent, refusals


@step("open-round", run_name="open-round-{number}")
def open_round(run_id: str, number: int) -> None:
    """Uploads are taken (again)."""
    shared_place.open_exchange().reopen(run_id, number)


@step("close-round", run_name="close-round-{number}")
def close_round(run_id: str, number: int, reason: str) -> None:
    """Uploads are refused from now on, with this reason."""
    shared_place.open_exchange().close(run_id, number, reason)


# --- what a machine keeps of a run in its own store ------------------------------------------------------------------


@step("keep-sent", run_name="keep-sent-round-{number}")
def keep_sent(run_id: str, number: int, sent: ClientUploads, place: Place) -> None:
    """A station notes what it sends in a round, with its provenance, which it needs in later rounds."""
    open_store(place).remember("sent", f"{run_id}-round-{number}", sent.model_dump(mode="json"))


@step("accepted-uploads")
def accepted_uploads(slots: Sequence[Slot], accepted: Sequence[str], place: Place) -> list[ClientUploads]:
    """A station's own uploads of these rounds that are in the banks, with their provenance, as one; none as none.

    `accepted`: the SHA-256 of all uploads in the banks. Raises ArtifactError where the provenance of one is gone.
    """
    store, exchange = open_store(place), shared_place.open_exchange()
    uploads, provenance = [], []
    for slot in slots:
        try:
            published = exchange.read(slot).uploads
        except UploadError:
            continue
        note = store.recall("sent", f"{slot.run_id}-round-{slot.round}") or {"client_id": slot.sender}
        kept = ClientUploads.model_validate({"uploads": (), "provenance": (), **note})
        origins = {one.sha256: origin for one, origin in zip(kept.uploads, kept.provenance, strict=True)}
        for upload in published:
            if upload.sha256 not in accepted:
                continue
            if upload.sha256 not in origins:
                raise ArtifactError(
                    f"the provenance of what {slot.sender} sent in round {slot.round} is not in its store any more; "
                    "start a new run"
                )
            uploads.append(upload)
            provenance.append(origins[upload.sha256])
    if not uploads:
        return []
    return [ClientUploads(client_id=slots[0].sender, uploads=tuple(uploads), provenance=tuple(provenance))]


@step("keep-round")
def keep_round(run_id: str, state: FederationRound, place: Place) -> None:
    """The coordinator notes the state after a round."""
    open_store(place).remember("rounds", f"{run_id}-round-{state.round}", state.model_dump(mode="json"))


@step("kept-round", run_name="kept-round-{number}")
def kept_round(run_id: str, number: int, place: Place) -> FederationRound | None:
    """The state after a round that a later one was built on, where its artifacts are still there."""
    store = open_store(place)
    note = store.recall("rounds", f"{run_id}-round-{number}")
    if note is None or not all(store.is_intact(manifest) for manifest in manifests_in(note)):
        return None
    return FederationRound.model_validate(note)


@step("register-part", run_name="register-{part}")
def register_part(run_id: str, part: str, manifests: Sequence[Manifest], place: Place, directory: str = "") -> None:
    """Note what this machine's part of a run refers to, for `fedpatch store prune`."""
    retention.register_run(open_store(place), f"{run_id}-{part}", manifests, run_directory=directory)


@step("finish-stations")
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
    summary = documents.federation_summary("federated", federation, None)
    summary = documents.with_bytes_left(summary, station_results.bytes_left(results))
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
            reading=_reading(federation),
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


def _reading(federation: Federation) -> Reading:
    """How the stations read their images; what they disagree on was refused."""
    readings = [upload.reading for client in federation.accepted for upload in client.uploads]
    ranges = {category: value for one in readings for category, value in one.value_ranges.items()}
    return Reading(orientation=readings[0].orientation, value_ranges=ranges) if readings else Reading()


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
                "bytes of rows": sum(upload.size_bytes for upload in own),
                "missing": missing.get(station, ""),
            }
        )
    create_table_artifact(
        key="stations",
        table=rows,
        description="What each station sent for the bank over all rounds, and why another is missing",
    )
