"""Tasks of a federation of several rounds: a client's share of a round and the banks after it."""

from __future__ import annotations

import numpy as np
from prefect import task

from data_contracts.manifests import BankManifest, ClientUploads, CurveManifest, Manifest, UploadManifest
from data_contracts.rounds import RowGrant
from data_contracts.stages import AggregationSettings, CoresetSettings, Place
from pipeline_lib import (
    aggregation,
    client_coreset,
    client_rounds,
    provenance,
    regional_aggregation,
    row_budget,
    upload_codec,
)
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
    passed: list[UploadManifest] | None = None,
    grants: dict[str, RowGrant] | None = None,
) -> ClientUploads:
    """What the client uploads in one round, given the server's banks and its own uploads of the rounds before.

    `passed`: what other clients sent earlier in this round; `grants`: bank -> what the server lets it send.
    """
    store = open_store(place)
    others: dict[str, list[np.ndarray]] = {}
    for upload in passed or []:
        others.setdefault(upload.category, []).append(upload_codec.decode_rows(store.read_arrays(upload)))
    coresets = client_rounds.select_round_coreset(
        store.read_table(patch_features),
        store,
        client_id,
        settings,
        num_rounds=num_rounds,
        banks={bank.bank: store.read_arrays(bank)["features"] for bank in banks},
        sent=client_rounds.origins_by_bank(store, sent),
        passed=others,
        grants=grants,
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


@stage("measure-coverage-curves", run_name="curves-{client_id}-round-{settings.round}")
def measure_coverage_curves(
    patch_features: Manifest,
    client_id: str,
    settings: CoresetSettings,
    banks: list[BankManifest],
    sent: list[ClientUploads],
    left: float,
    place: Place,
) -> list[CurveManifest]:
    """How far the client's next picks would lie from what is covered: the numbers that it asks for rows with."""
    store = open_store(place)
    curves = client_rounds.coverage_curves(
        store.read_table(patch_features),
        store,
        client_id,
        settings,
        banks={bank.bank: store.read_arrays(bank)["features"] for bank in banks},
        sent=client_rounds.origins_by_bank(store, sent),
        left=left,
        progress=progress_bar(f"curve-{client_id}", f"{client_id}: coverage curve of round {settings.round}"),
    )
    manifests = []
    for bank, (distances, n_patches) in curves.items():
        written = store.write_array("coverage_curve", distances)
        manifests.append(CurveManifest(**written.model_dump(), client_id=client_id, category=bank, n_patches=n_patches))
    return manifests


@task(name="grant-rows", task_run_name="grant-{bank}-round-{round_number}")
def grant_rows(
    curves: list[CurveManifest],
    bank: str,
    held: int,
    settings: AggregationSettings,
    oversample_factor: float,
    round_number: int,
    num_rounds: int,
    is_relay: bool,
    place: Place,
) -> RowGrant:
    """The server's part: what each client may send for one bank, of which `held` rows were sent before."""
    store = open_store(place)
    curves = sorted(curves, key=lambda one: one.client_id)
    bank_rows = aggregation.bank_size(settings, sum(curve.n_patches for curve in curves))
    n_rows = row_budget.rows_of_round(
        round(oversample_factor * bank_rows), held, round_number, num_rounds, is_relay=is_relay
    )
    budget = row_budget.cut_at_common_radius([store.read_array(curve) for curve in curves], n_rows)
    rows = {curve.client_id: int(n) for curve, n in zip(curves, budget.rows, strict=True)}
    is_last = round_number == num_rounds
    return RowGrant(rows=rows, down_to=None if is_last or not is_relay else budget.radius)


@stage("aggregate-round", run_name="aggregate-{bank}-round-{round_number}")
def aggregate_round(
    uploads: list[UploadManifest],
    bank: str,
    config_hash: str,
    settings: AggregationSettings,
    round_number: int,
    place: Place,
) -> BankManifest:
    """Merge what the clients sent for one bank in all rounds so far."""
    store = open_store(place)
    pending = regional_aggregation.pending_uploads(uploads, store.read_arrays, config_hash=config_hash)
    merged, regional = regional_aggregation.aggregate_pending(pending, settings, bank=bank)
    written = store.write_arrays("memory_bank", merged.to_arrays(), rows=len(merged.rows))
    return BankManifest(**written.model_dump(), bank=bank, dim=merged.rows.shape[1], regional=regional)
