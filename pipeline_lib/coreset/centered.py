"""A feature matrix seen block by block: exact in float64, or centered and scaled for float32 products."""

from __future__ import annotations

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.selection import refuse_non_finite

SAMPLED_ROWS = 4096
FLOAT32_SAFE = 1e37  # below this, the difference of two float32 values cannot overflow


class CenteredFeatures:
    """Rows of `features`, in two views, without a copy of the whole.

    `raw` gives float64 rows as they are: the difference of two is exact to a rounding, whatever the offset.
    `columns` gives (x, 1) with x the float32 row minus `center`, times `scale`, for matrix products. The center is
    about the mean, and the scale a power of two that brings the longest row to a norm from 0.5 to 1.
    Call `measure` for every row first: it fills `squared_norms`, float64 (rows,), of the scaled rows.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        self.dim = features.shape[1]
        self.squared_norms = np.empty(len(features))
        self.scale = 1.0
        sample = features[:: max(1, len(features) // SAMPLED_ROWS)]
        with np.errstate(over="ignore", invalid="ignore"):
            center = sample.mean(axis=0, dtype=np.float64).astype(np.float32).astype(np.float64)
        self.center: np.ndarray = np.where(np.isfinite(center), center, 0.0)
        self._float32_center: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    def raw(self, index: slice | np.ndarray | int) -> np.ndarray:
        """float64 rows in the coordinates that came in."""
        result: np.ndarray = self.features[index].astype(np.float64)
        return result

    def measure(self, block: slice) -> np.ndarray:
        """Fill the squared norms of a block, still without the scale; its raw rows."""
        rows = self.raw(block)
        with np.errstate(over="ignore", invalid="ignore"):
            self.squared_norms[block] = squared_norms(rows - self.center)
        return rows

    def set_scale(self, extra_squared_norm: float = 0.0) -> None:
        """Choose the scale when all blocks are measured. Raises FedpatchError when a value was not finite."""
        largest = max(float(self.squared_norms.max()), extra_squared_norm)
        if not np.isfinite(largest):
            refuse_non_finite(self.features)
            raise FedpatchError("features are too large: the squares of their distances overflow; rescale them")
        if largest > 0:
            self.scale = 2.0 ** -float(np.frexp(np.sqrt(largest))[1])
            self.squared_norms *= self.scale**2
        if self.features.dtype != np.float64 and largest < FLOAT32_SAFE**2:
            self._float32_center = self.center.astype(np.float32)

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """float32 (len(rows), dim + 1): centered and scaled rows, and a column of ones."""
        result = np.ones((len(rows), self.dim + 1), np.float32)
        result[:, :-1] = self.centered(self.features[rows])
        return result

    def centered(self, values: np.ndarray) -> np.ndarray:
        """Raw rows, minus the center, scaled: each value is rounded once to float32."""
        if self._float32_center is None or values.dtype == np.float64:
            scaled: np.ndarray = (values.astype(np.float64) - self.center) * self.scale
            return scaled.astype(np.float32)
        result: np.ndarray = values.astype(np.float32, copy=False) - self._float32_center
        result *= np.float32(self.scale)
        return result


def squared_norms(rows: np.ndarray) -> np.ndarray:
    """Sum of squares of each row, in the rows' own dtype."""
    result: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return result
