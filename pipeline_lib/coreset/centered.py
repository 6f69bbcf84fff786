"""A feature matrix seen block by block: exact in float64, centered for float32 products, and in a cheaper form."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.selection import refuse_non_finite
from pipeline_lib.neighbors.block_threads import Mapper
from pipeline_lib.neighbors.halves import widened
from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT, choose_basis, squared_norms
from pipeline_lib.storage.scratch import scratch_array

SAMPLED_ROWS = 1024
BLOCK_BYTES = 1 << 18  # what stays in a core's own cache, and takes no new pages from the system each time
FORM_SIZES = (16, 32, 48, 64)
EXPLAINED = 0.85  # share of the variance in the short forms: products with longer ones take longer than they save
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
        self, features: np.ndarray, first_center: np.ndarray, map_blocks: Mapper, *, scratch: Path | None = None
    ) -> None:
        """`first_squares`, float64 (rows,), are no less than the squared distances to `first_center`, raw (dim,).

        `scratch` is a directory for short forms that take more than 64 MiB; see pipeline_lib.storage.scratch.
        """
        self.features = features
        rows, self.dim = features.shape
        sample = np.array(widened(features[:: max(1, rows // SAMPLED_ROWS)], np.float64))
        if not np.isfinite(sample).all():
            refuse_non_finite(features)
        with np.errstate(over="ignore", invalid="ignore"):
            self.center: np.ndarray = sample.mean(axis=0).astype(np.float32).astype(np.float64)
            sample -= self.center
            largest = float(np.sqrt(squared_norms(sample).max()))
        if not np.isfinite(largest):
            raise FedpatchError("features are too large: the squares of their distances overflow; rescale them")
        self.basis = (
            choose_basis(sample / largest, possible_sizes=FORM_SIZES, explained=EXPLAINED) if largest > 0 else None
        )
        self.first_squares = np.empty(rows)
        self._short: np.ndarray | None = None
        if self.basis is not None:
            self._short = scratch_array((rows, self.basis.shape[1] + 1), np.float32, directory=scratch)
            self._short[:, -1] = 1.0
        self._float32_center = self.center.astype(np.float32)
        self.scale = power_of_two_scale(largest)
        self.in_float32 = features.dtype != np.float64
        largest = self._measure(first_center, map_blocks) if self.in_float32 else np.inf
        if not 1 / SAFE_NORM < largest < SAFE_NORM or not 1 / SAFE_NORM < largest / self.scale < SAFE_NORM:
            self.in_float32 = False
            largest = self._measure(first_center, map_blocks)
        if not np.isfinite(largest):
            refuse_non_finite(features)
            raise FedpatchError("features are too large: the squares of their distances overflow; rescale them")
        if not 1 / SAFE_NORM < largest < SAFE_NORM:
            self.scale *= power_of_two_scale(largest)
            self._measure(first_center, map_blocks)

    def __len__(self) -> int:
        return len(self.features)

    def _measure(self, first_center: np.ndarray, map_blocks: Mapper) -> float:
        """Fill `first_squares` and the short forms; the largest norm of a row, infinite or NaN where one overflows.

        The product with the center has the margin of pipeline_lib.coreset.center_distances.
        """
        dtype = np.dtype(np.float32 if self.in_float32 else np.float64)
        center = self.scaled64(first_center)
        square, unit = float(center @ center), (self.dim + 16) * FLOAT32_UNIT
        right = np.column_stack([center] if self.basis is None else [self.basis, center]).astype(dtype)
        step = self._block_rows(dtype)

        def measure(start: int) -> float:
            block = slice(start, start + step)
            rows = self._centered(self.features[block])
            norms = squared_norms(rows)
            squares, product = self._upwards(norms), rows @ right
            if self._short is not None:
                self._short[block, :-1] = product[:, :-1]
            self.first_squares[block] = squares + square - 2.0 * product[:, -1] + unit * (squares + 2.0 * square)
            return float(norms.max())

        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return float(np.sqrt(np.max(map_blocks(measure, range(0, len(self), step)))))

    def raw(self, index: slice | np.ndarray | int) -> np.ndarray:
        """float64 rows in the coordinates that came in."""
        return widened(self.features[index], np.float64)

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """float32 (len(rows), dim + 1): centered and scaled rows, and a column of ones."""
        result = np.empty((len(rows), self.dim + 1), np.float32)
        result[:, -1] = 1.0
        result[:, :-1] = self._centered(self.features[rows])
        return result

    def forms(self, rows: np.ndarray) -> np.ndarray:
        """float32 (len(rows), size + 1): short forms of centered and scaled rows, and a column of ones."""
        return self.columns(rows) if self._short is None else self._short[rows]

    def upper_squares(self, rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
        """float64 (rows,): no less than the squared distances to as many raw centers (rows, dim)."""
        dtype = np.result_type(np.float32 if self.in_float32 else np.float64, centers.dtype)
        squares, step = np.empty(len(rows), dtype), self._block_rows(dtype)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            squares[part] = squared_norms(np.subtract(widened(self.features[rows[part]]), centers[part], dtype=dtype))
        return self._upwards(squares) * self.scale**2

    def _block_rows(self, dtype: np.dtype) -> int:
        return int(np.clip(BLOCK_BYTES // (dtype.itemsize * self.dim), 16, 1024))

    def _upwards(self, squares: np.ndarray) -> np.ndarray:
        """float64 (rows,): no less than the squared norms of differences, whose sums in float32 these are.

        Each term is off by 3u of itself (u = 2^-24), their sum by dim u more, beside underflow.
        """
        result = squares.astype(np.float64)
        result *= 1.0 + (self.dim + 8) * FLOAT32_UNIT
        result += self.dim * (1e-37 if self.in_float32 else 1e-300)
        return result

    def _centered(self, values: np.ndarray) -> np.ndarray:
        """Raw rows, minus the center, scaled: float32 where that is as good for products in float32."""
        if not self.in_float32:
            return self.scaled64(values)
        result: np.ndarray = np.subtract(widened(values), self._float32_center, dtype=np.float32)
        result *= np.float32(self.scale)
        return result

    def scaled64(self, values: np.ndarray) -> np.ndarray:
        """Raw rows, minus the center, scaled, in float64."""
        result: np.ndarray = widened(values, np.float64) - self.center
        result *= self.scale
        return result


def power_of_two_scale(norm: float) -> float:
    """The power of two that brings `norm` to [0.5, 1); 1 for a norm of 0."""
    return 2.0 ** -float(np.frexp(norm)[1]) if norm > 0 else 1.0
