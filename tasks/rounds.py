"""A client's share of one of several rounds of a federation, as a task."""

from __future__ import annotations

from data_contracts.manifests import BankManifest, ClientUploads, Manifest
from data_contracts.stages import CoresetSettings, Place
from pipeline_lib import client_coreset, client_rounds, provenance
from tasks.stage import open_store, progress_bar, stage


@stage("select-round-coreset", run_name="coreset-{client_id}-round-{settings.round}")
def select_round_coreset(
    patch_features: Manifest,
    client_id: str,
    config_hash: str,
    settings: CoresetSettings,
    num_rounds: int,
    banks: list[BankManifest],
    sent: list[ClientUploads],
    place: Place,
) -> ClientUploads:
    """What the client uploads in one round, given the server's banks and its own uploads of the rounds before."""
    store = open_store(place)
    coresets = client_rounds.select_round_coreset(
        store.read_table(patch_features),
        store,
        client_id,
        settings,
        num_rounds=num_rounds,
        banks={bank.bank: store.read_arrays(bank)["features"] for bank in banks},
        sent=client_rounds.origins_by_bank(store, sent),
        progress=progress_bar(f"coreset-{client_id}", f"{client_id}: coreset rows of round {settings.round}"),
    )
    uploads, origin_manifests = [], []
    for coreset in coresets:
        written = store.write_arrays("client_upload", coreset.arrays, rows=coreset.n_rows)
        uploads.append(
            client_coreset.upload_manifest(
                written, coreset, client_id=client_id, round_number=settings.round, config_hash=config_hash
            )
        )
        arrays = provenance.Provenance.of(coreset).to_arrays()
        origin_manifests.append(store.write_arrays("client_provenance", arrays, rows=coreset.n_rows))
    return ClientUploads(client_id=client_id, uploads=tuple(uploads), provenance=tuple(origin_manifests))
