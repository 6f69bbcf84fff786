"""Squared distances of many rows to a growing list of centers: exact, but only where they lower a bound.

A product in float32 rules out pairs with a rigorous error margin; direct differences in float64 measure what is left.
"""

from __future__ import annotations

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.centered import CenteredFeatures
from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT, squared_norms
from pipeline_lib.when_needed import torch

PAIRS_PER_STEP = 2048
FLOAT64_UNIT = 2.0**-53


class RowBlock:
    """Rows that are compared together, with what comparisons need of them."""

    def __init__(self, points: CenteredFeatures, rows: np.ndarray, bounds: np.ndarray, limits: np.ndarray) -> None:
        self.rows = rows  # row numbers
        self.bounds = bounds  # squared distance to the nearest center so far
        self.limits = limits  # no less than that to the nearest of all centers
        self.columns = points.columns(rows)
        self.squares = _squares_of(self.columns[:, :-1])

    def keep(self, mask: np.ndarray) -> None:
        """Go on with the rows of `mask` alone."""
        self.rows, self.bounds, self.limits = self.rows[mask], self.bounds[mask], self.limits[mask]
        self.squares, self.columns = self.squares[mask], self.columns[mask]


class CenterDistances:
    """Centers in every form that comparisons need. Room for `capacity` of them; `add` fills it in order.

    |x - c|^2 = |x|^2 + (x, 1) . (-2c, |c|^2). In float32 the product of dim + 1 terms is off by at most
    (dim + 1) u (2|x||c| + |c|^2) with u = 2^-24 (Higham 2002, section 3.1), and rounding the factors adds 2u of the
    same and 3u |x|^2; 2|x||c| <= |x|^2 + |c|^2 gives the margin (dim + 16) u (|x|^2 + 2|c|^2).
    """

    def __init__(self, points: CenteredFeatures, capacity: int, dtype: np.dtype) -> None:
        self.points = points
        self.count = 0
        self.raw = np.empty((capacity, points.dim), dtype)
        self.squares = np.empty(capacity)
        self.columns = np.empty((capacity, points.dim + 1), np.float32)  # (-2c, |c|^2)
        self.forms = self.columns  # the same for products with the rows' `forms`
        if points.basis is not None:
            self.forms = np.empty((capacity, points.basis.shape[1] + 1), np.float32)
        self.margin = (points.dim + 16) * FLOAT32_UNIT
        self.margin64 = (points.dim + 16) * FLOAT64_UNIT

    def add(self, raw: np.ndarray) -> None:
        """Append centers, raw rows (centers, dim)."""
        part = slice(self.count, self.count + len(raw))
        centered = self.points.scaled64(raw)
        squares = squared_norms(centered)
        if not (squares < 2.0**100).all():
            raise FedpatchError("initial_centers lie too far from the features to be compared; rescale both")
        self.raw[part] = raw
        self.squares[part] = squares
        self.columns[part, :-1] = -2.0 * centered
        self.columns[part, -1] = squares
        if self.points.basis is not None:
            self.forms[part, :-1] = -2.0 * (centered @ self.points.basis)
            self.forms[part, -1] = squares
        self.count += len(raw)

    def lower_bounds_among(self, rows: np.ndarray) -> np.ndarray:
        """float32 (rows, rows): no more than the squared distances between them."""
        columns = self.points.columns(rows)[:, :-1]
        squares = _squares_of(columns)
        kept = squares * (1.0 - 2.0 * self.margin) - 1e-37
        product: np.ndarray = columns @ columns.T
        product *= -2.0
        product += kept.astype(np.float32)
        product += kept.astype(np.float32)[:, None]
        return product

    def lower_bounds(self, block: RowBlock, start: int, stop: int) -> None:
        """Lower the block's bounds to the squared distances to centers [start, stop) that may be the nearest."""
        norms = block.squares + 2.0 * self.squares[start:stop].max()
        product = (torch.from_numpy(block.columns) @ torch.from_numpy(self.columns[start:stop]).T).numpy()
        limits = np.minimum(block.bounds, block.limits)
        near, centers = _undecided_pairs(product, block.squares, limits, self.margin * norms + 1e-37)
        if len(near) > 4 * len(block.rows) + PAIRS_PER_STEP:  # near-duplicates: in float64 for the rows in question
            some = np.unique(near)
            product, squares = self._product64(block.rows[some], start, stop)
            near, centers = _undecided_pairs(product, squares, limits[some], self.margin64 * norms[some])
            near = some[near]
        self._by_differences(block, near, start + centers)

    def _product64(self, rows: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """|c|^2 - 2 c . x in float64, (rows, centers), and |x|^2 (rows,)."""
        centers = self.points.scaled64(self.raw[start:stop])
        points = self.points.scaled64(self.points.features[rows])
        product: np.ndarray = points @ centers.T
        product *= -2.0
        product += squared_norms(centers)
        return product, squared_norms(points)

    def _by_differences(self, block: RowBlock, near: np.ndarray, centers: np.ndarray) -> None:
        """The pairs (block.rows[near], centers), in float64."""
        square_of_scale = self.points.scale**2
        for step in range(0, len(near), PAIRS_PER_STEP):
            some = near[step : step + PAIRS_PER_STEP]
            difference = self.points.raw(block.rows[some])
            difference -= self.raw[centers[step : step + PAIRS_PER_STEP]]
            np.minimum.at(block.bounds, some, squared_norms(difference) * square_of_scale)


def _squares_of(rows: np.ndarray) -> np.ndarray:
    """float64 (rows,): squared norms of float32 rows."""
    result: np.ndarray = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return result


def _nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`mask.nonzero()`, faster for few hits."""
    flat = np.flatnonzero(mask.reshape(-1))
    return np.divmod(flat, mask.shape[1])


def _undecided_pairs(
    product: np.ndarray, squares: np.ndarray, limits: np.ndarray, margin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, center) whose distance may be the row's smallest and at most its limit.

    `product` (rows, centers) plus `squares` (rows,) is a squared distance, known to within `margin` (rows,).
    """
    rows, centers = _nonzero(product <= _at_least(limits + margin - squares, product.dtype)[:, None])
    if len(rows) > 4 * len(product):  # the limits were far off
        lowest = product[np.arange(len(product)), product.argmin(axis=1)].astype(np.float64)
        keep = product[rows, centers] <= _at_least(lowest + 2.0 * margin, product.dtype)[rows]
        rows, centers = rows[keep], centers[keep]
    return rows, centers


def _at_least(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values of the dtype that are not below `values`."""
    result: np.ndarray = np.nextafter(values.astype(dtype), dtype.type(np.inf))
    return result
