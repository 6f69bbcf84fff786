"""A feature matrix seen block by block: exact in float64, centered for float32 products, and in a cheaper form."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.selection import refuse_non_finite
from pipeline_lib.neighbors.bfloat16_products import BFloat16Factors
from pipeline_lib.neighbors.block_threads import Mapper
from pipeline_lib.neighbors.short_forms import choose_basis, shorten
from pipeline_lib.storage.scratch import scratch_array

SAMPLED_ROWS = 1024
BLOCK_BYTES = 1 << 20  # about what stays in cache
SAFE_NORM = 2.0**40  # scaled norms below it keep every float32 square far from overflow and underflow
FLOAT32_SAFE = 1e37  # below it, the difference of two float32 values cannot overflow


class CenteredFeatures:
    """Rows of `features` (rows, dim) without a copy of the whole.

    `raw` gives float64 rows as they are: the difference of two is exact to a rounding, whatever the offset.
    `columns` gives (x, 1) with x the float32 row minus `center`, times `scale`: the left side of a matrix product.
    `short_columns` holds the same of all rows' short forms (see pipeline_lib.neighbors.short_forms), float32 (rows,
    size + 2); it is None where a projection would not pay, and where `bfloat16_rows` are there instead: whole rows for
    products of pipeline_lib.coreset.upper_bounds. The center is about the mean, the scale a power of two.
    `squared_norms`, float64 (rows,), and all distances of this class are those of the scaled rows.

    Raises FedpatchError for values that are not finite, or so large that squares overflow.
    """

    def __init__(
        self,
        features: np.ndarray,
        first_center: np.ndarray | int,
        map_blocks: Mapper,
        *,
        scratch: Path | None = None,
        bfloat16: bool = False,
    ) -> None:
        """`first_center` is a row number or a raw row (dim,); `first_squares` are the squared distances to it.

        `scratch` is a directory for cheaper forms that take more than 64 MiB; see pipeline_lib.storage.scratch.
        """
        self.features = features
        rows, self.dim = features.shape
        sample = features[:: max(1, rows // SAMPLED_ROWS)].astype(np.float64)
        if not np.isfinite(sample).all():
            refuse_non_finite(features)
        with np.errstate(over="ignore", invalid="ignore"):
            self.center: np.ndarray = sample.mean(axis=0).astype(np.float32).astype(np.float64)
            sample -= self.center
            largest = float(np.sqrt(squared_norms(sample).max()))
        if not np.isfinite(largest):
            raise FedpatchError("features are too large: the squares of their distances overflow; rescale them")
        self.bfloat16_rows = BFloat16Factors(rows, self.dim, side=1, scratch=scratch) if bfloat16 else None
        self.basis = choose_basis(sample / largest) if largest > 0 and not bfloat16 else None
        self.squared_norms = np.empty(rows)
        self.first_squares = np.empty(rows)
        self.short_columns: np.ndarray | None = None
        if self.basis is not None:
            self.short_columns = scratch_array((rows, self.basis.shape[1] + 2), np.float32, directory=scratch)
            self.short_columns[:, -1] = 1.0
        center = self.raw(first_center) if isinstance(first_center, int) else first_center.astype(np.float64)
        self.scale = power_of_two_scale(largest)
        self._measure(center, map_blocks)
        largest = float(np.sqrt(self.squared_norms.max()))
        if not np.isfinite(largest):
            refuse_non_finite(features)
            raise FedpatchError("features are too large: the squares of their distances overflow; rescale them")
        if not 1 / SAFE_NORM < largest < SAFE_NORM:
            self.scale *= power_of_two_scale(largest)
            self._measure(center, map_blocks)
        self._float32_center = self.center.astype(np.float32)
        self._by_float32 = features.dtype != np.float64 and largest / self.scale < FLOAT32_SAFE

    def __len__(self) -> int:
        return len(self.features)

    def _measure(self, first_center: np.ndarray, map_blocks: Mapper) -> None:
        step = int(np.clip(BLOCK_BYTES // (8 * self.dim), 64, 1024))

        def measure(start: int) -> None:
            block = slice(start, start + step)
            rows = self.raw(block)
            self.first_squares[block] = squared_norms(rows - first_center) * self.scale**2
            rows -= self.center
            rows *= self.scale
            self.squared_norms[block] = squared_norms(rows)
            if self.short_columns is not None and self.basis is not None:
                self.short_columns[block, :-1] = shorten(rows, self.squared_norms[block], self.basis)
            if self.bfloat16_rows is not None:
                self.bfloat16_rows.put(block, rows, self.squared_norms[block])

        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            map_blocks(measure, range(0, len(self), step))

    def raw(self, index: slice | np.ndarray | int) -> np.ndarray:
        """float64 rows in the coordinates that came in."""
        result: np.ndarray = self.features[index].astype(np.float64)
        return result

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """float32 (len(rows), dim + 1): centered and scaled rows, and a column of ones."""
        result = np.empty((len(rows), self.dim + 1), np.float32)
        result[:, -1] = 1.0
        values = self.features[rows]
        if self._by_float32 and values.dtype != np.float64:
            np.subtract(values, self._float32_center, out=result[:, :-1])
            result[:, :-1] *= np.float32(self.scale)
        else:
            result[:, :-1] = self.scaled64(values)
        return result

    def scaled64(self, values: np.ndarray) -> np.ndarray:
        """Raw rows, minus the center, scaled, in float64."""
        result: np.ndarray = values.astype(np.float64) - self.center
        result *= self.scale
        return result


def power_of_two_scale(norm: float) -> float:
    """The power of two that brings `norm` to [0.5, 1); 1 for a norm of 0."""
    return 2.0 ** -float(np.frexp(norm)[1]) if norm > 0 else 1.0


def squared_norms(rows: np.ndarray) -> np.ndarray:
    """Sum of squares of each row, in the rows' own dtype."""
    result: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return result
