"""Which uploaded rows each row of a bank is the mean of, through one or more merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_lib.coreset.cell_means import move_rows


@dataclass(frozen=True)
class MovedRows:
    """What becomes of uploaded rows that carry counts. Every merge moves the rows that it keeps (`move_rows`)."""

    counts: np.ndarray  # int64 (row,): patches that went into each row
    upload_cell: np.ndarray  # int32 (uploaded row,): the row that it went into
    representative: np.ndarray  # int32 (row,): the uploaded row that was kept and moved

    @classmethod
    def of(cls, counts: np.ndarray) -> MovedRows:
        """Uploaded rows as they came; counts: int64 (row,)."""
        numbers = np.arange(len(counts), dtype=np.int32)
        return cls(counts, numbers, numbers)

    @classmethod
    def joined(cls, parts: Sequence[MovedRows]) -> MovedRows:
        """Rows of several parts one after the other, and their uploaded rows."""
        rows = np.cumsum([0, *(len(part.counts) for part in parts[:-1])], dtype=np.int32)
        uploaded = np.cumsum([0, *(len(part.upload_cell) for part in parts[:-1])], dtype=np.int32)
        return cls(
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.upload_cell + start for part, start in zip(parts, rows, strict=True)]),
            np.concatenate([part.representative + start for part, start in zip(parts, uploaded, strict=True)]),
        )

    def merge(self, rows: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, MovedRows, float]:
        """Keep some of the rows (row, dim) and move them: (their means float32, what they are of now, the radius).

        The radius is the largest distance of a row to the mean that it went into.
        """
        cells = move_rows(rows, self.counts, kept)
        moved = MovedRows(cells.counts, cells.cell[self.upload_cell], self.representative[kept])
        return cells.means, moved, cells.covering_radius

    def with_rows_in(self, order: np.ndarray) -> MovedRows:
        """The same after `rows[order]`."""
        return MovedRows(self.counts[order], _inverse(order)[self.upload_cell], self.representative[order])

    def with_uploads_in(self, order: np.ndarray) -> MovedRows:
        """The same where uploaded rows are counted in another order."""
        return MovedRows(self.counts, self.upload_cell[order], _inverse(order)[self.representative])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As part of a bank."""
        return {"counts": self.counts, "upload_cell": self.upload_cell, "representative": self.representative}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> MovedRows | None:
        """Of a bank's arrays; None where its rows are patches."""
        if "upload_cell" not in arrays:
            return None
        return cls(arrays["counts"], arrays["upload_cell"], arrays["representative"])


def keep_rows(
    rows: np.ndarray, kept: np.ndarray | slice, radius: float | None, moved: MovedRows | None
) -> tuple[np.ndarray, MovedRows | None, float | None]:
    """`rows[kept]`, moved where they carry counts (`moved`) and others went into them; what they are of; the radius.

    radius: of the rows over those that are kept, which holds where none moves. All are kept: slice(None).
    """
    if moved is None or isinstance(kept, slice):
        return rows[kept], moved, radius
    return moved.merge(rows, kept)


def _inverse(order: np.ndarray) -> np.ndarray:
    inverse = np.empty(len(order), np.int32)
    inverse[order] = np.arange(len(order), dtype=np.int32)
    return inverse
