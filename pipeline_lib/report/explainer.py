"""Explanations for a run's own report: patch features and banks come from the store, so that no image passes the
backbone again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.errors import ArtifactError
from data_contracts.manifests import BankManifest, Cells
from pipeline_lib.bank.explanation import PatchExplanation, explain_patches, origins_of
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.features.extraction import read_patches
from pipeline_lib.storage.artifact_store import ArtifactStore

logger = logging.getLogger(__name__)


class BankExplainer:
    """The most similar normal patches of one bank. The bank is read when the first image is explained.

    features: PATCH_FEATURES rows, the images to explain among them; provenance: BANK_PROVENANCE of the bank where all
    images lay at one place, else None; image_paths: image id -> file, used for what `provenance` names.
    """

    def __init__(
        self,
        store: ArtifactStore,
        features: pd.DataFrame,
        bank: BankManifest,
        *,
        provenance: pd.DataFrame | None = None,
        image_paths: Mapping[str, Path] | None = None,
    ) -> None:
        self.store, self.features, self.bank = store, features, bank
        self.provenance, self.image_paths = provenance, image_paths or {}
        self._opened: tuple[MemoryBank, list[str] | None] | None = None

    def explain(self, image_id: str, grid_map: np.ndarray, n_patches: int) -> list[PatchExplanation]:
        """The image's highest patches with their nearest rows, searched exactly.

        Nothing where its features are not in the store any more: scores that were kept do not need them.
        """
        table = self.features[self.features.image_id == image_id].head(1)
        if not len(table) or (table.grid_height.iloc[0], table.grid_width.iloc[0]) != grid_map.shape:
            return []
        try:
            patches = read_patches(table, self.store)
        except ArtifactError as error:
            logger.warning("%s is not explained: %s", image_id, error)
            return []
        bank, clients = self._open()
        return explain_patches(
            grid_map,
            patches,
            bank,
            origins=lambda rows: origins_of(self.provenance, rows, lambda: self.image_paths),
            clients=clients,
            cells=Cells.of_table(table.cells.iloc[0]),
            n_patches=n_patches,
        )

    def _open(self) -> tuple[MemoryBank, list[str] | None]:
        if self._opened is None:
            arrays = self.store.read_arrays(self.bank)
            clients = None
            if "row_client" in arrays:
                names = [str(name) for name in arrays["client_ids"]]
                clients = [names[number] for number in arrays["row_client"]]
            self._opened = MemoryBank(arrays["features"], use_faiss=False), clients
        return self._opened


def bank_explainers(
    store: ArtifactStore,
    banks: Sequence[BankManifest],
    features: pd.DataFrame,
    *,
    provenance: Mapping[str, pd.DataFrame],
    index: pd.DataFrame,
    data_root: Path,
) -> dict[str, BankExplainer]:
    """bank name -> its explainer. Images of normal patches are shown only where `provenance` has the bank.

    features: PATCH_FEATURES; provenance: bank name -> BANK_PROVENANCE; index: DATASET_INDEX, paths below `data_root`.
    """
    paths = {str(i): data_root / p for i, p in zip(index.image_id, index.path, strict=True)} if provenance else {}
    return {
        bank.bank: BankExplainer(store, features, bank, provenance=provenance.get(bank.bank), image_paths=paths)
        for bank in banks
    }
