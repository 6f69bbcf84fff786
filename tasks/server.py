"""Tasks that run at the server: check uploads, grant rows, merge uploads into memory banks."""

from __future__ import annotations

from prefect import get_run_logger

from data_contracts.errors import ArtifactError, UploadError
from data_contracts.manifests import BankManifest, UploadManifest
from data_contracts.settings import AggregationSettings, Place
from pipeline_lib.server import regions
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.upload import acceptance
from tasks.stage import open_store, stage, step


@step("check-uploads", run_name="check-{bank}-round-{round_number}")
def check_uploads(
    uploads: list[UploadManifest],
    bank: str,
    config_hash: str,
    round_number: int,
    place: Place,
    with_counts: bool | None = None,
) -> dict[str, str]:
    """Client -> why the server does not take its upload for one bank; logged as warnings.

    It runs every time: a refusal is not remembered, so that what was mended is taken at the next try.
    """
    store = ArtifactStore(place.store)
    dim = acceptance.common_dim(upload for upload in uploads if store.is_intact(upload))
    refused = acceptance.refuse_other_readings(uploads)
    for upload in uploads:  # one at a time in memory
        if upload.client_id in refused:
            continue
        try:
            acceptance.check_upload(
                upload,
                store.read_arrays(upload),
                dim=dim,
                config_hash=config_hash,
                round_number=round_number,
                with_counts=with_counts,
            )
        except UploadError as error:
            refused[upload.client_id] = str(error)
        except ArtifactError as error:
            refused[upload.client_id] = f"upload of client {upload.client_id} for {bank} refused: {error}"
    for reason in refused.values():
        get_run_logger().warning("%s; going on with the others", reason)
    return refused


@stage("aggregate-memory-bank", run_name="aggregate-{bank}-round-{round_number}")
def aggregate_memory_bank(
    uploads: list[UploadManifest],
    bank: str,
    config_hash: str,
    settings: AggregationSettings,
    round_number: int,
    place: Place,
) -> BankManifest:
    """Merge what the clients sent for one bank in all rounds so far (DESIGN artifact 5)."""
    store = open_store(place)
    pending = regions.pending_uploads(uploads, store.read_arrays, config_hash=config_hash, round_number=round_number)
    merged, regional = regions.aggregate_pending(pending, settings, bank=bank)
    written = store.write_arrays("memory_bank", merged.to_arrays(), rows=len(merged.rows))
    return BankManifest(**written.model_dump(), bank=bank, dim=merged.rows.shape[1], regional=regional)
