"""Tasks that run at the server: check uploads and merge them into memory banks."""

from __future__ import annotations

import numpy as np

from data_contracts.manifests import BankManifest, UploadManifest
from data_contracts.stages import AggregationSettings, Place
from pipeline_lib import aggregation
from tasks.stage import open_store, stage


@stage("aggregate-memory-bank", run_name="aggregate-{bank}")
def aggregate_memory_bank(
    uploads: list[UploadManifest],
    bank: str,
    config_hash: str,
    settings: AggregationSettings,
    round_number: int,
    place: Place,
) -> BankManifest:
    """Merge the clients' uploads for one bank (DESIGN artifact 5)."""
    store = open_store(place)
    dim = uploads[0].dim if uploads else None
    checked = [
        aggregation.check_upload(
            upload, store.read_arrays(upload), dim=dim, config_hash=config_hash, round_number=round_number
        )
        for upload in uploads
    ]
    merged = aggregation.aggregate_uploads(checked, settings, bank=bank)
    arrays = {
        "features": merged.rows,
        "client_ids": np.array(merged.client_ids, dtype=np.str_),
        "row_client": merged.row_client,
    }
    written = store.write_arrays("memory_bank", arrays, rows=len(merged.rows))
    return BankManifest(**written.model_dump(), bank=bank, dim=merged.rows.shape[1])
