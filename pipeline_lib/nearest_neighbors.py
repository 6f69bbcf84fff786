"""Exact nearest neighbours in a fixed set of rows: a cheap product names candidates, differences decide.

A matrix product of short forms (pipeline_lib.short_forms) gives a lower bound of every distance. The row with the
smallest is measured, and only rows whose lower bound does not exceed that distance can be nearer: a handful of many
thousands for features of a backbone. They are measured by direct differences in float64, so that the answer is exact
(to the float32 it is returned in) for any offset and scale, and does not depend on the number of threads.
"""

from __future__ import annotations

import threading

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.block_threads import block_mapper
from pipeline_lib.short_forms import choose_basis, principal_basis, shorten, shortening_error

SAMPLED_ROWS = 2048
PRODUCT_BYTES = 10 << 20  # of one thread; about what stays in cache
WIDE = 512  # dimensions from which a middle form pays
MIDDLE_SIZE = 320
PAIRS_PER_STEP = 2048
FLOAT32_UNIT = 2.0**-24
SAFE_NORM = 2.0**50  # scaled norm of a query beyond which float32 squares might overflow


def check_matrix(matrix: np.ndarray, *, name: str, dim: int | None = None) -> np.ndarray:
    """The matrix as C-ordered float32. Raises FedpatchError when it is no finite (rows, dim) matrix."""
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or matrix.shape[1] == 0:
        raise FedpatchError(f"{name}: got {matrix.dtype} of shape {matrix.shape}; expected floats (rows, dimensions)")
    if dim is not None and matrix.shape[1] != dim:
        raise FedpatchError(
            f"{name}: got {matrix.shape[1]} dimensions, the bank has {dim}; use the same backbone and layers for both"
        )
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(matrix, dtype=np.float32)
    if not np.isfinite(result).all():
        bad = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
        raise FedpatchError(f"{name}: NaN or infinity, first in row {bad}; distances need finite float32 values")
    return result


def exact_distances(queries: np.ndarray, bank: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Distances by direct differences in float64, as float32 (queries, k), to the bank rows `indices` (queries, k)."""
    numbers = np.repeat(np.arange(len(queries)), indices.shape[1])
    squares = _squared_differences(queries, numbers, bank, indices.reshape(-1))
    distances: np.ndarray = np.sqrt(squares).astype(np.float32).reshape(indices.shape)
    return distances


class ExactSearch:
    """Rows prepared for exact search: float32 (rows, dim), finite, at least one. They are not copied.

    Memory beside them: the short form (at most 130 values a row), for 512 and more dimensions 321 values more, and
    16 bytes a row; while searching about 20 MB a thread.
    """

    def __init__(self, rows: np.ndarray, *, threads: int | None = None) -> None:
        self.rows = rows
        self.threads = threads
        sample = rows[:: max(1, len(rows) // SAMPLED_ROWS)].astype(np.float64)
        self.center: np.ndarray = sample.mean(axis=0)
        sample -= self.center
        norms = np.concatenate([_squares(self._centered(rows[s : s + 4096])) for s in range(0, len(rows), 4096)])
        largest = float(np.sqrt(norms.max()))
        self.scale = 2.0 ** -float(np.frexp(largest)[1]) if largest > 0 else 1.0
        self.squares: np.ndarray = norms * self.scale**2
        dim = rows.shape[1]
        with block_mapper(threads):
            self.basis = choose_basis(sample * self.scale)
            self.middle_basis: np.ndarray | None = None
            if self.basis is not None and dim >= WIDE and len(sample) >= 2 * MIDDLE_SIZE:
                middle, _ = principal_basis(sample * self.scale, MIDDLE_SIZE)
                self.middle_basis, self.basis = middle, np.ascontiguousarray(middle[:, : self.basis.shape[1]])
        size = dim if self.basis is None else self.basis.shape[1] + 1
        self.unit = (size + 16) * FLOAT32_UNIT + (shortening_error(dim, size) if size < dim else 0.0)
        self.columns = np.empty((len(rows), size + 1), np.float32)
        self.middle = None if self.middle_basis is None else np.empty((len(rows), MIDDLE_SIZE + 1), np.float32)
        self._fill_columns()

    def _fill_columns(self) -> None:
        """The right side of the product, (-2b, |b|^2 less its share of the error); see `_search_block`."""

        def fill(start: int) -> None:
            part = slice(start, start + 2048)
            centered = self._centered(self.rows[part]) * self.scale
            short, middle = self._forms(centered, self.squares[part])
            self.columns[part, :-1] = -2.0 * short
            self.columns[part, -1] = self.squares[part] * (1.0 - 2.0 * self.unit)
            if self.middle is not None:
                self.middle[part] = middle

        with block_mapper(self.threads) as map_blocks:
            map_blocks(fill, range(0, len(self.rows), 2048))

    def _centered(self, raw: np.ndarray) -> np.ndarray:
        result: np.ndarray = raw.astype(np.float64)
        result -= self.center
        return result

    def _forms(self, centered: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Short form, and middle form where there is one, of centered and scaled rows."""
        if self.basis is None:
            return centered, None
        if self.middle_basis is None:
            return shorten(centered, squares, self.basis), None
        middle = shorten(centered, squares, self.middle_basis)
        size = self.basis.shape[1]
        short = np.empty((len(centered), size + 1))
        short[:, :-1] = middle[:, :size]
        short[:, -1] = np.sqrt(np.maximum(squares - _squares(short[:, :-1]), 0.0))
        return short, middle.astype(np.float32)

    def search(self, queries: np.ndarray, num_neighbors: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(distances float32, not squared; indices int64), both (queries, k), nearest first, k at most the rows.

        `queries` are float32 (queries, dim), finite. Equal distances: the lowest index first.
        """
        kept = min(num_neighbors, len(self.rows))
        distances = np.empty((len(queries), kept), np.float32)
        indices = np.empty((len(queries), kept), np.int64)
        step = int(np.clip(PRODUCT_BYTES // (4 * len(self.rows)), 16, 512))
        buffers = threading.local()

        def search(start: int) -> None:
            if not hasattr(buffers, "product"):
                buffers.product = np.empty(len(self.rows) * step, np.float32)
            part = slice(start, start + step)
            distances[part], indices[part] = self._search_block(queries[part], kept, buffers.product)

        with block_mapper(self.threads) as map_blocks:
            map_blocks(search, range(0, len(queries), step))
        return distances, indices

    def _search_block(self, queries: np.ndarray, kept: int, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """|q - b|^2 >= |q|^2 + (q', 1) . (-2b', |b|^2) with short forms q', b'; the float32 product is off by at most
        unit (|q|^2 + 2|b|^2) (see coreset/center_distances.py), which is taken off both squares beforehand.
        """
        centered = self._centered(queries) * self.scale
        squares = _squares(centered)
        if squares.max() > SAFE_NORM**2:
            return self._measure_all(queries, kept)
        short, middle = self._forms(centered, squares)
        left = np.ones((len(queries), self.columns.shape[1]), np.float32)
        left[:, :-1] = short
        product = buffer[: len(self.rows) * len(queries)].reshape(len(self.rows), len(queries))
        np.matmul(self.columns, left.T, out=product)
        rows, numbers = _nonzero(_candidates(product, kept))
        measured = _squared_differences(queries, numbers, self.rows, rows) * self.scale**2
        reach = _kth_smallest(measured, numbers, len(queries), kept)
        limit = reach - squares * (1.0 - self.unit) + 1e-37
        rows, numbers = _nonzero(product <= np.nextafter(limit.astype(np.float32), np.float32(np.inf)))
        if middle is not None and self.middle is not None and len(rows) > 2 * kept * len(queries):
            keep = self._within_reach(middle, squares, rows, numbers, reach)
            rows, numbers = rows[keep], numbers[keep]
        measured = _squared_differences(queries, numbers, self.rows, rows)
        return _first_of_each(measured, numbers, rows, len(queries), kept)

    def _within_reach(
        self, middle: np.ndarray, squares: np.ndarray, rows: np.ndarray, numbers: np.ndarray, reach: np.ndarray
    ) -> np.ndarray:
        """Which pairs the middle forms do not rule out; bool (pairs,)."""
        assert self.middle is not None
        unit = (MIDDLE_SIZE + 16) * FLOAT32_UNIT + shortening_error(self.rows.shape[1], MIDDLE_SIZE)
        keep = np.empty(len(rows), bool)
        for start in range(0, len(rows), PAIRS_PER_STEP):
            part = slice(start, start + PAIRS_PER_STEP)
            difference = self.middle[rows[part]]
            difference -= middle[numbers[part]]
            margin = unit * (squares[numbers[part]] + self.squares[rows[part]]) + 1e-37
            keep[part] = _squares(difference) - margin <= reach[numbers[part]]
        return keep

    def _measure_all(self, queries: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Queries too far away for float32 products: every row by differences."""
        rows = np.arange(len(self.rows))
        parts = [
            _first_of_each(
                _squared_differences(queries, np.full(len(rows), i), self.rows, rows),
                np.zeros(len(rows), np.int64),
                rows,
                1,
                kept,
            )
            for i in range(len(queries))
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _squares(rows: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return result


def _nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`mask.nonzero()`, faster for few hits."""
    return np.divmod(np.flatnonzero(mask.reshape(-1)), mask.shape[1])


def _candidates(product: np.ndarray, kept: int) -> np.ndarray:
    """A mask (rows, queries) with at least `kept` rows of each query whose lower bounds are small.

    For one neighbour the smallest; for more the smallest of each of many runs of rows, less what is clearly too far.
    """
    rows, queries = product.shape
    if kept == 1:
        mask: np.ndarray = product <= product.min(axis=0)
        return mask
    run = max(1, rows // (8 * kept))
    runs = rows // run
    if runs < 2 * kept:
        found: np.ndarray = product <= np.partition(product, kept - 1, axis=0)[kept - 1]
        return found
    blocks = product[: runs * run].reshape(runs, run, queries)
    smallest = blocks.min(axis=1)
    kth = np.partition(smallest, kept - 1, axis=0)[kept - 1]
    mask = np.zeros((rows, queries), bool)
    np.equal(blocks, np.where(smallest <= kth, smallest, np.nan)[:, None], out=mask[: runs * run].reshape(blocks.shape))
    return mask


def _squared_differences(queries: np.ndarray, numbers: np.ndarray, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """float64 (pairs,): |queries[numbers] - rows[chosen]|^2 by direct differences."""
    result = np.empty(len(numbers))
    for start in range(0, len(numbers), PAIRS_PER_STEP):
        part = slice(start, start + PAIRS_PER_STEP)
        difference = queries[numbers[part]].astype(np.float64)
        difference -= rows[chosen[part]]
        result[part] = _squares(difference)
    return result


def _kth_smallest(values: np.ndarray, numbers: np.ndarray, queries: int, kept: int) -> np.ndarray:
    """The `kept`-th smallest of each query's values, (queries,); every query has that many."""
    order = np.lexsort((values, numbers))
    first = np.searchsorted(numbers[order], np.arange(queries))
    result: np.ndarray = values[order[first + kept - 1]]
    return result


def _first_of_each(
    squares: np.ndarray, numbers: np.ndarray, rows: np.ndarray, queries: int, kept: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows of the `kept` nearest pairs of each query, (queries, kept)."""
    order = np.lexsort((rows, squares, numbers))
    first = np.searchsorted(numbers[order], np.arange(queries))
    chosen = order[first[:, None] + np.arange(kept)]
    return np.sqrt(squares[chosen]).astype(np.float32), rows[chosen]
