"""Tasks that run at a client: patch features of its own images, its coreset, and what it uploads."""

from __future__ import annotations

import numpy as np

from data_contracts.manifests import ClientImages, ClientUploads, Manifest
from data_contracts.stages import BackboneSettings, CoresetSettings, Place
from data_contracts.tables import PATCH_FEATURES
from pipeline_lib import backbone, client_coreset, features, hardware
from tasks.caching import code_version
from tasks.stage import open_store, progress_bar, stage


@stage("extract-client-features", run_name="extract-{client.client_id}")
def extract_client_features(
    client: ClientImages, settings: BackboneSettings, sizes: dict[str, tuple[int, int]], place: Place
) -> Manifest:
    """Patch features of the client's own training images (DESIGN artifact 3)."""
    store = open_store(place)
    table = features.extract_features(
        features.image_rows(store.read_table(client.images), place.data_root),
        store,
        backbone.shared_extractor(settings, hardware.pick_device(place.device)),
        sizes,
        version=code_version("pipeline_lib.features"),
        batch_size=place.batch_size,
        num_workers=place.num_workers,
        progress=progress_bar(f"extract-{client.client_id}", f"{client.client_id}: images extracted"),
    )
    return store.write_table("patch_features", table, PATCH_FEATURES)


@stage("select-client-coreset", run_name="coreset-{client_id}")
def select_client_coreset(
    patch_features: Manifest, client_id: str, config_hash: str, settings: CoresetSettings, place: Place
) -> ClientUploads:
    """The client's coreset as it is uploaded (DESIGN artifact 4), and its provenance, which stays (4b)."""
    store = open_store(place)
    table = store.read_table(patch_features)
    uploads, provenance = [], []
    device = hardware.pick_device(place.device)
    progress = progress_bar(f"coreset-{client_id}", f"{client_id}: coreset rows")
    version = code_version("pipeline_lib.client_coreset")
    for coreset in client_coreset.select_client_coreset(
        table, store, client_id, settings, version=version, progress=progress, device=device
    ):
        written = store.write_arrays("client_upload", coreset.arrays, rows=coreset.n_rows)
        uploads.append(
            client_coreset.upload_manifest(
                written, coreset, client_id=client_id, round_number=settings.round, config_hash=config_hash
            )
        )
        origin = {
            "image_ids": np.array(coreset.image_ids, dtype=np.str_),
            "patch_image": coreset.patch_image,
            "patch_index": coreset.patch_index,
        }
        provenance.append(store.write_arrays("client_provenance", origin, rows=coreset.n_rows))
    return ClientUploads(client_id=client_id, uploads=tuple(uploads), provenance=tuple(provenance))
