"""What the final bank lacks: the distance of each of a client's training patches to the nearest row.

Measured at the client, from the patch features that it keeps; what leaves it are a few numbers a category. The largest
distance is the covering radius of the merged bank over the client's patches (Gonzalez 1985), the quantiles say whether
one patch or many lie far away.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from data_contracts.manifests import GLOBAL_BANK
from data_contracts.results import Coverage
from data_contracts.settings import ScoringSettings
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.bank.scoring import score_images
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.when_needed import torch

QUANTILES = {"q50": 0.5, "q90": 0.9, "q95": 0.95, "q99": 0.99}
NEAREST = ScoringSettings(seed=0, num_neighbors=1, image_score="max", search="exact", use_faiss=False)


def client_coverage(
    table: pd.DataFrame,
    store: ArtifactStore,
    banks: Mapping[str, np.ndarray],
    *,
    device: torch.device | None = None,
) -> dict[str, Coverage]:
    """Category -> distances to the nearest row, searched exactly whatever the run's own search is.

    table: PATCH_FEATURES of the client's training images; banks: category, or "all" for the global bank -> rows
    (row, dim) float32. Categories without a bank are left out. Memory: 4 bytes a patch beside the search's own.
    """
    opened = {name: MemoryBank(rows, use_faiss=False, device=device) for name, rows in banks.items()}
    found = {}
    for category, own in table.groupby("category", sort=True):
        bank = opened.get(GLOBAL_BANK) or opened.get(str(category))
        if bank is not None:
            found[str(category)] = coverage_of(score_images(own, store, bank, NEAREST).maps.ravel())
    return found


def coverage_of(distances: np.ndarray) -> Coverage:
    """Mean, quantiles (linear between neighbours) and maximum of distances (patch,), at least one."""
    values = {name: float(np.quantile(distances, share)) for name, share in QUANTILES.items()}
    mean, largest = float(distances.mean(dtype=np.float64)), float(distances.max())
    return Coverage(patches=len(distances), mean=mean, covering_radius=largest, **values)
