"""Tasks that run at a client: patch features of its own images, its coreset, and what it uploads."""

from __future__ import annotations

from data_contracts.manifests import BankManifest, ClientImages, ClientUploads, Manifest
from data_contracts.settings import BackboneSettings, CoresetSettings, Place
from data_contracts.tables import PATCH_FEATURES
from pipeline_lib.client import provenance, rounds, selection
from pipeline_lib.configuration import hardware
from pipeline_lib.features import backbone, extraction
from tasks.caching.policy import code_version
from tasks.stage import open_store, progress_bar, stage


@stage("extract-client-features", run_name="extract-{client.client_id}")
def extract_client_features(
    client: ClientImages, settings: BackboneSettings, sizes: dict[str, tuple[int, int]], place: Place
) -> Manifest:
    """Patch features of the client's own training images (DESIGN artifact 3)."""
    store = open_store(place)
    table = extraction.extract_features(
        extraction.image_rows(store.read_table(client.images), place.data_root),
        store,
        backbone.shared_extractor(settings, hardware.pick_device(place.device)),
        sizes,
        version=code_version("pipeline_lib.features.extraction"),
        batch_size=place.batch_size,
        num_workers=place.num_workers,
        progress=progress_bar(f"extract-{client.client_id}", f"{client.client_id}: images extracted"),
    )
    return store.write_table("patch_features", table, PATCH_FEATURES)


@stage("select-client-coreset", run_name="coreset-{client_id}-round-{settings.round}")
def select_client_coreset(
    patch_features: Manifest,
    client_id: str,
    config_hash: str,
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
    of_round = f" of round {settings.round}" if num_rounds > 1 else ""
    coresets = rounds.select_client_coreset(
        store.read_table(patch_features),
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
                written, coreset, client_id=client_id, round_number=settings.round, config_hash=config_hash
            )
        )
        arrays = provenance.Provenance.of(coreset).to_arrays()
        origins.append(store.write_arrays("client_provenance", arrays, rows=coreset.n_rows))
    return ClientUploads(client_id=client_id, uploads=tuple(uploads), provenance=tuple(origins))
