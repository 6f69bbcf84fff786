"""A client's selection, kept in its own store: uploads that differ after the selection alone select once.

What is kept are indices into the client's own patches. Like provenance it stays with the client.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.config import canonical_hash
from data_contracts.manifests import Manifest
from data_contracts.settings import CoresetSettings
from pipeline_lib.coreset.selection import CoresetSelection
from pipeline_lib.storage.artifact_store import ArtifactStore

logger = logging.getLogger(__name__)

RECORDS = "selections"
NOT_SELECTING = {"codec", "clip_norm", "noise_sigma", "rows", "lloyd_steps"}  # what is done with the selection


@dataclass(frozen=True)
class StoredSelection:
    """The place in a store of one selection: of one client, for one bank, from these patches, by this code."""

    store: ArtifactStore
    key: str

    @classmethod
    def of(
        cls,
        store: ArtifactStore,
        features_sha256: Sequence[str],
        settings: CoresetSettings,
        *,
        client_id: str,
        bank: str,
        version: str,
    ) -> StoredSelection:
        """`features_sha256`: of each image's stored features, in the order of the patches; `version`: of the code."""
        selecting = settings.model_dump(mode="json", exclude=NOT_SELECTING)
        if settings.rows in ("split_wide", "near_start"):
            selecting["rows"] = settings.rows
        return cls(store, canonical_hash([version, client_id, bank, selecting, list(features_sha256)]))

    def recall(self) -> CoresetSelection | None:
        """The selection; None where there is none, or where its file is missing or damaged."""
        record = self.store.recall(RECORDS, self.key)
        if record is None:
            return None
        manifest = Manifest.model_validate(record["manifest"])
        if not self.store.is_intact(manifest):
            logger.warning("a stored selection is missing or damaged, selecting again: %s", manifest.path)
            return None
        arrays = self.store.read_arrays(manifest)
        return CoresetSelection(arrays["indices"], float(arrays["covering_radius"]), arrays["pick_distances"])

    def remember(self, selection: CoresetSelection) -> None:
        """Keep the selection."""
        arrays = {
            "indices": selection.indices,
            "covering_radius": np.array(selection.covering_radius),
            "pick_distances": selection.pick_distances,
        }
        manifest = self.store.write_arrays("client_selection", arrays, rows=len(selection))
        self.store.remember(RECORDS, self.key, {"manifest": manifest.model_dump()})
