"""What a client selects for upload in a round, given what the server's banks and its own earlier rows cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from data_contracts.manifests import ClientUploads
from data_contracts.settings import CoresetSettings
from pipeline_lib.client.provenance import Provenance
from pipeline_lib.client.selection import ClientCoreset, Progress, coreset_of_patches, rows_by_bank
from pipeline_lib.client.stored_selection import StoredSelection
from pipeline_lib.features.extraction import read_patches
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.when_needed import torch


def select_client_coreset(
    table: pd.DataFrame,
    store: ArtifactStore,
    client_id: str,
    settings: CoresetSettings,
    *,
    num_rounds: int = 1,
    banks: Mapping[str, np.ndarray] | None = None,
    sent: Mapping[str, Sequence[Provenance]] | None = None,
    version: str | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> list[ClientCoreset]:
    """The client's share of round `settings.round` for every bank that has something new.

    table: its PATCH_FEATURES; `banks` are the server's rows (row, dim) after the round before, `sent` the origins of
    the rows that the server accepted from this client, both by bank. What is covered by any of them is left out,
    farthest first; own rows count as they are here, not as a codec or noise left them, so that no row is sent twice.
    All rounds together send as many rows as one round would. Memory does not grow with the images but for some 20 bytes
    a patch: the patches stay in float16, as stored, and on disk beside the store where they exceed 64 MiB. With a
    `version` of the code the selections of a single round are kept in the store, and taken from it where only codec,
    clipping or noise are others. Raises DatasetError when the client has no images.
    """
    scratch = store.root / "scratch"

    def coreset_of(bank: str, rows: pd.DataFrame) -> ClientCoreset | None:
        patches = read_patches(rows, store, dtype=np.float16, scratch=scratch)
        image_ids, counts = [str(i) for i in rows.image_id], (rows.grid_height * rows.grid_width).to_numpy()
        own = [origin.rows(patches, image_ids, counts) for origin in (sent or {}).get(bank, ())]
        stored = None
        if version is not None and num_rounds == 1:  # what is covered is no part of a stored selection's key
            stored = StoredSelection.of(
                store, list(rows.sha256), settings, client_id=client_id, bank=bank, version=version
            )
        return coreset_of_patches(
            patches,
            image_ids,
            counts,
            settings,
            bank=bank,
            client_id=client_id,
            raw_image_bytes=int(rows.image_bytes.sum()),
            num_rounds=num_rounds,
            sent=np.concatenate(own) if own else None,
            covered=(banks or {}).get(bank),
            stored=stored,
            progress=progress,
            scratch=scratch,
            device=device,
        )

    coresets = [coreset_of(bank, rows) for bank, rows in rows_by_bank(table, client_id, settings)]
    return [coreset for coreset in coresets if coreset is not None]


def origins_by_bank(store: ArtifactStore, sent: Sequence[ClientUploads]) -> dict[str, list[Provenance]]:
    """bank -> where the rows that a client sent before came from."""
    origins: dict[str, list[Provenance]] = {}
    for earlier in sent:
        for upload, origin in zip(earlier.uploads, earlier.provenance, strict=True):
            origins.setdefault(upload.category, []).append(Provenance.from_arrays(store.read_arrays(origin)))
    return origins
