"""Tasks that run at a client: patch features, its coreset and what it uploads, scores for thresholds, coverage."""

from __future__ import annotations

from data_contracts import tables
from data_contracts.manifests import GLOBAL_BANK, BankManifest, ClientImages, ClientUploads, Manifest
from data_contracts.settings import BackboneSettings, CalibrationSettings, CoresetSettings, Place, Reading
from data_contracts.tables import PATCH_FEATURES
from pipeline_lib.client import calibration, coverage, provenance, rounds, selection
from pipeline_lib.configuration import hardware
from pipeline_lib.dataset.groups import assignment
from pipeline_lib.features import extraction
from pipeline_lib.upload import counts
from tasks.caching.code_version import code_version
from tasks.progress import progress_bar
from tasks.stage import open_store, stage


@stage("extract-client-features", run_name="extract-{client.client_id}")
def extract_client_features(
    client: ClientImages,
    settings: BackboneSettings,
    sizes: dict[str, tuple[int, int]],
    reading: Reading,
    place: Place,
) -> Manifest:
    """Patch features of the client's own training images (DESIGN artifact 3)."""
    store = open_store(place)
    table = extraction.extract_features(
        extraction.image_rows(store.read_table(client.images), place.data_root),
        store,
        extraction.shared_extractor(settings, hardware.pick_device(place.device)),
        sizes,
        reading=reading,
        version=code_version("pipeline_lib.features.extraction"),
        batch_size=place.batch_size,
        num_workers=place.num_workers,
        remade_from=None if place.keep_features else place.data_root,
        progress=progress_bar(f"extract-{client.client_id}", f"{client.client_id}: images extracted"),
    )
    return store.write_table("patch_features", table, PATCH_FEATURES)


@stage("select-client-coreset", run_name="coreset-{client_id}-round-{settings.round}")
def select_client_coreset(
    patch_features: Manifest,
    client_id: str,
    config_hash: str,
    reading: Reading,
    settings: CoresetSettings,
    num_rounds: int,
    banks: list[BankManifest],
    sent: list[ClientUploads],
    place: Place,
) -> ClientUploads:
    """What the client uploads in one round (DESIGN artifact 4), and its provenance, which stays (4b).

    `banks` are the server's after the round before, `sent` its own uploads until then; none in the first round.
    """
    store = open_store(place)
    table = store.read_table(patch_features)
    reading = reading.only(table.category)
    of_round = f" of round {settings.round}" if num_rounds > 1 else ""
    coresets = rounds.select_client_coreset(
        table,
        store,
        client_id,
        settings,
        num_rounds=num_rounds,
        banks={bank.bank: store.read_arrays(bank)["features"] for bank in banks},
        sent=rounds.origins_by_bank(store, sent),
        version=code_version("pipeline_lib.client.selection"),
        progress=progress_bar(f"coreset-{client_id}", f"{client_id}: coreset rows{of_round}"),
        device=hardware.pick_device(place.device),
    )
    uploads, origins = [], []
    for coreset in coresets:
        written = store.write_arrays("client_upload", coreset.arrays, rows=coreset.n_rows)
        uploads.append(
            selection.upload_manifest(
                written,
                coreset,
                client_id=client_id,
                round_number=settings.round,
                config_hash=config_hash,
                reading=reading,
            )
        )
        arrays = provenance.Provenance.of(coreset).to_arrays()
        origins.append(store.write_arrays("client_provenance", arrays, rows=coreset.n_rows))
    return ClientUploads(client_id=client_id, uploads=tuple(uploads), provenance=tuple(origins))


@stage("calibrate-client", run_name="calibrate-{uploads.client_id}")
def calibrate_client(
    patch_features: Manifest,
    uploads: ClientUploads,
    banks: list[BankManifest],
    settings: CalibrationSettings,
    groups: Manifest | None,
    place: Place,
) -> Manifest:
    """Scores of the client's training images by the banks without the image's own block; no image identity."""
    store = open_store(place)
    group_of = assignment.stored_groups(store, groups)
    number_of = {group: number for number, group in enumerate(sorted(set(group_of.values())))}
    table = store.read_table(patch_features)
    by_category = {}
    for bank in banks:
        arrays = store.read_arrays(bank)
        rows = arrays["features"]
        sent = [
            (
                counts.rows_of(store.read_arrays(upload)),
                upload.reconstruction_error,
                provenance.Provenance.from_arrays(store.read_arrays(stayed)),
            )
            for upload, stayed in zip(uploads.uploads, uploads.provenance, strict=True)
            if upload.category == bank.bank
        ]
        if not sent:
            continue
        origins = calibration.origins_in_bank(arrays, uploads.client_id, sent, table, store)
        for category, own in table.groupby("category", sort=True):
            if bank.bank in (category, GLOBAL_BANK):
                numbers = [number_of.get(group_of.get(image_id, ""), -1) for image_id in own.image_id]
                by_category[str(category)] = calibration.out_of_fold_scores(
                    own,
                    store,
                    rows,
                    origins,
                    settings.scoring,
                    n_blocks=settings.blocks,
                    groups=None if groups is None else numbers,
                    device=hardware.pick_device(place.device),
                )
    scores = calibration.calibration_table(uploads.client_id, by_category)
    return store.write_table("calibration_scores", scores, tables.calibration_schema(scores.columns))


@stage("measure-bank-coverage", run_name="coverage-{client_id}")
def measure_bank_coverage(
    patch_features: Manifest, banks: list[BankManifest], client_id: str, place: Place
) -> Manifest:
    """Quantiles of the distances by category; which patch lies where stays with the client."""
    store = open_store(place)
    found = coverage.client_coverage(
        store.read_table(patch_features),
        store,
        {bank.bank: store.read_arrays(bank)["features"] for bank in banks},
        device=hardware.pick_device(place.device),
    )
    return store.write_json("bank_coverage", {name: values.model_dump(mode="json") for name, values in found.items()})
