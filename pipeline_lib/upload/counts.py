"""How many patches each row of an upload stands for: an array beside the codec's, where rows are means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_contracts.errors import UploadError
from pipeline_lib.upload.codec import decode_rows

COUNTS = "counts"
BYTES_PER_COUNT = 4


def with_counts(encoded: Mapping[str, np.ndarray], counts: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of an upload of means: those of the codec, and the patches of each row, int32 (row,)."""
    return {**encoded, COUNTS: counts.astype(np.int32)}


def split_counts(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """(the codec's arrays, the counts as they came or None)."""
    return {name: array for name, array in arrays.items() if name != COUNTS}, arrays.get(COUNTS)


def rows_of(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows of an upload, decoded, float32 (row, dim). Raises UploadError for arrays that no codec writes."""
    return decode_rows(split_counts(arrays)[0])


def checked_counts(counts: np.ndarray, *, n_rows: int, n_patches: int) -> np.ndarray:
    """The counts of an upload as int64 (row,). Raises UploadError for what cannot be counts of so many patches."""
    if counts.shape != (n_rows,) or counts.dtype.kind not in "iu":
        raise UploadError(
            f"its array {COUNTS} is {counts.dtype} of shape {counts.shape}; it takes an integer a row, ({n_rows},)"
        )
    if (counts < 0).any() or (counts > n_patches).any():  # also what int64 could not hold
        raise UploadError(f"its {COUNTS} are from {counts.min()} to {counts.max()}, of {n_patches} patches")
    if (total := counts.sum(dtype=np.float64)) > n_patches:
        raise UploadError(f"its {COUNTS} add up to {total:.0f}, but the client names only {n_patches} patches")
    checked: np.ndarray = counts.astype(np.int64)
    return checked
