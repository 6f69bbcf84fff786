"""Squared distances of many rows to a growing list of centers: exact, but only where they lower a bound.

Three stages, each ruling out what it can with a rigorous error margin: a float32 product of the rows' short forms
(lower bounds), a float32 product of the whole rows, and direct differences in float64 for the pairs that are left.
"""

from __future__ import annotations

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.centered import CenteredFeatures, squared_norms
from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT, shorten, shortening_error

PAIRS_PER_STEP = 2048
PAIR_COST = 50  # a direct difference takes about as long as this many entries of a float32 product
FLOAT64_UNIT = 2.0**-53


class RowBlock:
    """Rows that are compared together, with what comparisons need of them; whole rows are fetched when first used."""

    def __init__(self, points: CenteredFeatures, rows: np.ndarray, bounds: np.ndarray) -> None:
        self.points = points
        self.rows = rows  # row numbers
        self.bounds = bounds  # squared distance to the nearest center so far
        self.squares = points.squared_norms[rows]
        self.short = None if points.short_columns is None else points.short_columns[rows]
        self._whole: np.ndarray | None = None

    def whole(self) -> np.ndarray:
        """float32 (rows, dim + 1)."""
        if self._whole is None:
            self._whole = self.points.columns(self.rows)
        return self._whole

    def keep(self, mask: np.ndarray) -> None:
        """Go on with the rows of `mask` alone."""
        self.rows, self.bounds, self.squares = self.rows[mask], self.bounds[mask], self.squares[mask]
        self.short = None if self.short is None else self.short[mask]
        self._whole = None if self._whole is None else self._whole[mask]


class CenterDistances:
    """Centers in every form that comparisons need. Room for `capacity` of them; `add` fills it in order.

    |x - c|^2 = |x|^2 + (x, 1) . (-2c, |c|^2). In float32 the product of dim + 1 terms is off by at most
    (dim + 1) u (2|x||c| + |c|^2) with u = 2^-24 (Higham 2002, section 3.1), and rounding the factors adds 2u of the
    same; 2|x||c| <= |x|^2 + |c|^2 gives the margin (dim + 16) u (|x|^2 + 2|c|^2).
    """

    def __init__(self, points: CenteredFeatures, capacity: int, dtype: np.dtype) -> None:
        self.points = points
        self.count = 0
        self.raw = np.empty((capacity, points.dim), dtype)
        self.squares = np.empty(capacity)
        self.columns = np.empty((capacity, points.dim + 1), np.float32)  # (-2c, |c|^2)
        self.short_columns: np.ndarray | None = None
        self.margin = (points.dim + 16) * FLOAT32_UNIT
        self.margin64 = (points.dim + 16) * FLOAT64_UNIT
        if points.basis is not None:
            size = points.basis.shape[1]
            self.short_columns = np.empty((capacity, size + 2), np.float32)
            self.short_margin = (size + 17) * FLOAT32_UNIT + shortening_error(points.dim, size)
        self._blocks_to_skip = 0  # the short forms rule out too little at present

    def add(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Append centers, raw rows (centers, dim); returns them centered and scaled, and their squared norms."""
        part = slice(self.count, self.count + len(raw))
        centered = self.points.scaled64(raw)
        squares = squared_norms(centered)
        if not (squares < 2.0**100).all():
            raise FedpatchError("initial_centers lie too far from the features to be compared; rescale both")
        self.raw[part] = raw
        self.squares[part] = squares
        self.columns[part, :-1] = -2.0 * centered
        self.columns[part, -1] = squares
        if self.short_columns is not None and self.points.basis is not None:
            self.short_columns[part, :-1] = -2.0 * shorten(centered, squares, self.points.basis)
            self.short_columns[part, -1] = squares
        self.count += len(raw)
        return centered, squares

    def lower_bounds(self, block: RowBlock, start: int, stop: int) -> None:
        """Lower the block's bounds to the squared distances to centers [start, stop) where those are smaller."""
        norms = block.squares + 2.0 * self.squares[start:stop].max()
        if block.short is None or self.short_columns is None or self._blocks_to_skip > 0:
            self._blocks_to_skip -= 1
            self._by_whole_rows(block, norms, start, stop)
            return
        product = self.short_columns[start:stop] @ block.short.T
        limit = _up_to_float32(block.bounds - block.squares + self.short_margin * norms + 1e-37)
        hit = np.flatnonzero(product.min(axis=0) <= limit)
        if not len(hit):
            return
        centers, near = _nonzero(np.take(product, hit, axis=1) <= limit[hit])
        if len(near) * PAIR_COST <= len(hit) * (stop - start):
            self._by_differences(block, hit[near], start + centers)
        elif len(hit) > 0.8 * len(block.rows):
            self._blocks_to_skip = 8
            self._by_whole_rows(block, norms, start, stop)
        else:
            part = RowBlock(self.points, block.rows[hit], block.bounds[hit])
            self._by_whole_rows(part, norms[hit], start, stop)
            block.bounds[hit] = part.bounds

    def _by_whole_rows(self, block: RowBlock, norms: np.ndarray, start: int, stop: int) -> None:
        product = self.columns[start:stop] @ block.whole().T
        near, centers = _undecided_pairs(product, block.squares, block.bounds, self.margin * norms + 1e-37)
        if len(near) > 4 * len(block.rows) + PAIRS_PER_STEP:  # near-duplicates: in float64 for the rows in question
            some = np.unique(near)
            product = self._product64(block.rows[some], start, stop)
            near, centers = _undecided_pairs(
                product, block.squares[some], block.bounds[some], self.margin64 * norms[some]
            )
            near = some[near]
        self._by_differences(block, near, start + centers)

    def _product64(self, rows: np.ndarray, start: int, stop: int) -> np.ndarray:
        """|c|^2 - 2 c . x in float64, (centers, rows)."""
        centers = self.points.scaled64(self.raw[start:stop])
        product: np.ndarray = centers @ self.points.scaled64(self.points.features[rows]).T
        product *= -2.0
        product += squared_norms(centers)[:, None]
        return product

    def _by_differences(self, block: RowBlock, near: np.ndarray, centers: np.ndarray) -> None:
        """The pairs (block.rows[near], centers), in float64."""
        square_of_scale = self.points.scale**2
        for step in range(0, len(near), PAIRS_PER_STEP):
            some = near[step : step + PAIRS_PER_STEP]
            difference = self.points.raw(block.rows[some])
            difference -= self.raw[centers[step : step + PAIRS_PER_STEP]]
            np.minimum.at(block.bounds, some, squared_norms(difference) * square_of_scale)


def _nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`mask.nonzero()`, faster for few hits."""
    flat = np.flatnonzero(mask.reshape(-1))
    return np.divmod(flat, mask.shape[1])


def _up_to_float32(values: np.ndarray) -> np.ndarray:
    """float32 values that are not below `values`."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def _undecided_pairs(
    product: np.ndarray, squares: np.ndarray, bounds: np.ndarray, margin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, center) whose distance may be the row's smallest and below its bound.

    `product` (centers, rows) plus `squares` (rows,) is a squared distance, known to within `margin` (rows,).
    """
    lowest = product.min(axis=0) + squares
    closer = np.flatnonzero(lowest - margin < bounds)
    if not len(closer):
        return closer, closer
    limit = np.minimum(bounds[closer], lowest[closer] + margin[closer]) + margin[closer] - squares[closer]
    limit = np.nextafter(limit.astype(product.dtype), product.dtype.type(np.inf))
    centers, rows = _nonzero(np.take(product, closer, axis=1) <= limit)
    return closer[rows], centers
