"""A feature matrix seen block by block: exact in float64, centered for float32 products, and in a cheaper form."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.selection import refuse_non_finite
from pipeline_lib.neighbors.block_threads import Mapper
from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT, choose_basis
from pipeline_lib.storage.scratch import scratch_array

SAMPLED_ROWS = 1024
BLOCK_BYTES = 1 << 20  # about what stays in cache
SAFE_NORM = 2.0**40  # scaled norms below it keep every float32 square far from overflow and underflow


class CenteredFeatures:
    """Rows of `features` (rows, dim) without a copy of the whole.

    `raw` gives float64 rows as they are: the difference of two is exact to a rounding, whatever the offset.
    `columns` gives (x, 1) with x the float32 row minus `center`, times `scale`: the left side of a matrix product.
    `forms` gives (x Q, 1), float32, with Q the leading principal directions (`basis`), of which products with others
    say about how far two rows are apart; whole rows where few directions do not hold most of the variance. The center
    is about the mean, the scale a power of two. All distances of this class are those of the scaled rows.

    Raises FedpatchError for values that are not finite, or so large that squares overflow.
    """

    def __init__(
        self,
        features: np.ndarray,
        first_center: np.ndarray | int,
        map_blocks: Mapper,
        *,
        scratch: Path | None = None,
    ) -> None:
        """`first_center` is a row number or a raw row (dim,); `first_squares` is `upper_squares` of all rows to it.

        `scratch` is a directory for short forms that take more than 64 MiB; see pipeline_lib.storage.scratch.
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
        self.basis = choose_basis(sample / largest) if largest > 0 else None
        self.first_squares = np.empty(rows)
        self._short: np.ndarray | None = None
        if self.basis is not None:
            self._short = scratch_array((rows, self.basis.shape[1] + 1), np.float32, directory=scratch)
            self._short[:, -1] = 1.0
        center = features[first_center] if isinstance(first_center, int) else first_center
        self._float32_center = self.center.astype(np.float32)
        self.scale = power_of_two_scale(largest)
        self.in_float32 = features.dtype != np.float64
        largest = self._measure(center, map_blocks) if self.in_float32 else np.inf
        if not 1 / SAFE_NORM < largest < SAFE_NORM or not 1 / SAFE_NORM < largest / self.scale < SAFE_NORM:
            self.in_float32 = False
            largest = self._measure(center, map_blocks)
        if not np.isfinite(largest):
            refuse_non_finite(features)
            raise FedpatchError("features are too large: the squares of their distances overflow; rescale them")
        if not 1 / SAFE_NORM < largest < SAFE_NORM:
            self.scale *= power_of_two_scale(largest)
            self._measure(center, map_blocks)

    def __len__(self) -> int:
        return len(self.features)

    def _measure(self, first_center: np.ndarray, map_blocks: Mapper) -> float:
        """Fill `first_squares` and the short forms; the largest norm of a row, infinite or NaN where one overflows."""
        step = int(np.clip(BLOCK_BYTES // (8 * self.dim), 64, 1024))

        def measure(start: int) -> float:
            block = slice(start, start + step)
            self.first_squares[block] = self.upper_squares(block, first_center)
            rows = self._centered(self.features[block])
            if self._short is not None and self.basis is not None:
                np.matmul(rows, self.basis.astype(rows.dtype), out=self._short[block, :-1], casting="same_kind")
            return float(squared_norms(rows).max())

        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return float(np.sqrt(np.max(map_blocks(measure, range(0, len(self), step)))))

    def raw(self, index: slice | np.ndarray | int) -> np.ndarray:
        """float64 rows in the coordinates that came in."""
        result: np.ndarray = self.features[index].astype(np.float64)
        return result

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """float32 (len(rows), dim + 1): centered and scaled rows, and a column of ones."""
        result = np.empty((len(rows), self.dim + 1), np.float32)
        result[:, -1] = 1.0
        result[:, :-1] = self._centered(self.features[rows])
        return result

    def forms(self, rows: np.ndarray) -> np.ndarray:
        """float32 (len(rows), size + 1): short forms of centered and scaled rows, and a column of ones."""
        return self.columns(rows) if self._short is None else self._short[rows]

    def upper_squares(self, rows: slice | np.ndarray, centers: np.ndarray) -> np.ndarray:
        """float64 (rows,): no less than the squared distances to raw `centers` (rows, dim) or (dim,).

        In float32 each term is off by 3u of itself (u = 2^-24), their sum by dim u more, beside underflow.
        """
        dtype = np.result_type(np.float32 if self.in_float32 else np.float64, centers.dtype)
        difference = np.subtract(self.features[rows], centers, dtype=dtype)
        result = squared_norms(difference).astype(np.float64)
        result *= 1.0 + (self.dim + 8) * FLOAT32_UNIT
        result += self.dim * 1e-37
        result *= self.scale**2
        return result

    def _centered(self, values: np.ndarray) -> np.ndarray:
        """Raw rows, minus the center, scaled: float32 where that is as good for products in float32."""
        if not self.in_float32:
            return self.scaled64(values)
        result: np.ndarray = np.subtract(values, self._float32_center, dtype=np.float32)
        result *= np.float32(self.scale)
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
