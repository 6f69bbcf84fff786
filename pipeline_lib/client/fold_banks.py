"""A bank of means without the patches of some of a client's images: exact, from sums and counts, without a selection.

A row of the bank stands for the sum of `counts` patches. What the client's images put into it is taken out again, and
the rest divided by what is left. Other clients' patches stay; a row of which nothing is left goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline_lib.client.provenance import Provenance
from pipeline_lib.coreset.cell_means import sums_of_cells
from pipeline_lib.coreset.moved_rows import MovedRows
from pipeline_lib.features.extraction import read_patches
from pipeline_lib.storage.artifact_store import ArtifactStore

Sent = tuple[np.ndarray, float, Provenance]
"""An upload: rows (row, dim) as they were sent, their reconstruction error, where they came from."""


@dataclass(frozen=True)
class OwnMeans:
    """One client's part in a bank of means.

    A codec, noise or clipping moved a sent row by its error, and with it each patch that the row stands for: so a patch
    counts as itself plus the error of its row, and all patches of a row together as what was sent.
    """

    moved: MovedRows
    cells: tuple[Mapping[str, np.ndarray], ...]  # of each upload: image id -> own row of each patch, -1 for none
    upload_cell: np.ndarray  # int32 (own row,) over all uploads: the bank's row
    starts: np.ndarray  # int64 (upload,): own row that each upload begins with
    errors: np.ndarray | None  # float64 (own row, dim): sent minus mean; None where they were sent as they are

    @classmethod
    def of(
        cls,
        bank: Mapping[str, np.ndarray],
        client_id: str,
        sent: Sequence[Sent],
        table: pd.DataFrame,
        store: ArtifactStore,
    ) -> OwnMeans | None:
        """From a bank's arrays and the client's uploads in order; None where the bank's rows are patches.

        table: PATCH_FEATURES of the client's images.
        """
        moved = MovedRows.from_arrays(bank)
        if moved is None:
            return None
        place = bank["client_ids"].tolist().index(client_id)
        own = moved.upload_cell[bank["upload_starts"][place] : bank["upload_starts"][place + 1]]
        errors = None
        if any(error > 0 for _, error, _ in sent):
            images = table[table.image_id.isin([image for _, _, origin in sent for image in origin.image_ids])]
            patches = read_patches(images, store, dtype=np.float16, scratch=store.root / "scratch")
            ids, counts = list(images.image_id), (images.grid_height * images.grid_width).to_numpy()
            errors = np.concatenate([_errors(rows, origin, patches, ids, counts) for rows, _, origin in sent])
        starts = np.cumsum([0, *(len(rows) for rows, _, _ in sent[:-1])])
        return cls(moved, tuple(origin.cells() for _, _, origin in sent), own, starts, errors)

    def bank_without(
        self, bank_rows: np.ndarray, images: pd.DataFrame, store: ArtifactStore
    ) -> tuple[np.ndarray, np.ndarray]:
        """The bank's rows (row, dim) without these images' patches, float32; images: PATCH_FEATURES of some.

        Beside them which row of the bank each is, -1 for one that lost patches. Rows that stand for no patch in the
        first place are left out, too: they lie where a patch was picked.
        """
        patches = read_patches(images, store, dtype=np.float16, scratch=store.root / "scratch")
        sizes = (images.grid_height * images.grid_width).to_numpy()
        counts = self.moved.counts.copy()
        removed: dict[int, np.ndarray] = {}
        for cells, start in zip(self.cells, self.starts.tolist(), strict=True):
            none = [np.full(size, -1, np.int32) for size in sizes]
            cell = np.concatenate([cells.get(str(i), n) for i, n in zip(images.image_id, none, strict=True)])
            own, patch_own = np.unique(cell, return_inverse=True)
            sums = sums_of_cells(patches, patch_own, len(own))
            for row, total, count in zip(own.tolist(), sums, np.bincount(patch_own).tolist(), strict=True):
                if row < 0:
                    continue
                place = int(self.upload_cell[start + row])
                taken = total if self.errors is None else total + count * self.errors[start + row]
                removed[place] = removed.get(place, 0.0) + taken
                counts[place] -= count
        rows, source = bank_rows.astype(np.float32), np.arange(len(bank_rows))
        for place, taken in removed.items():
            source[place] = -1
            if counts[place] > 0:
                rows[place] = (self.moved.counts[place] * bank_rows[place].astype(np.float64) - taken) / counts[place]
        return rows[counts > 0], source[counts > 0]


def _errors(
    rows: np.ndarray, origin: Provenance, patches: np.ndarray, image_ids: Sequence[str], counts: np.ndarray
) -> np.ndarray:
    """What was sent (row, dim) minus the mean that it stands for; 0 for a row that stands for none."""
    errors = np.zeros(rows.shape)
    assert origin.cell is not None
    filled = np.bincount(origin.cell[origin.cell >= 0], minlength=len(rows)) > 0
    errors[filled] = rows[filled].astype(np.float64) - origin.rows(patches, image_ids, counts)
    return errors
