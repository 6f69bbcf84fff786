"""Exact nearest neighbours in a fixed set of rows: a cheap product names candidates, differences decide.

A matrix product of short forms (pipeline_lib.neighbors.short_forms, pipeline_lib.neighbors.bounds) gives a lower bound
of every distance. The row with the smallest is measured, and only rows whose lower bound does not exceed that distance
can be nearer: a handful of many thousands for features of a backbone. They are measured by direct differences in
float64, so that the answer is exact (to the float32 it is returned in) for any offset and scale, and does not depend on
the number of threads. For one neighbour in a large bank the product leaves out clusters of rows that are too far away
(pipeline_lib.neighbors.clusters); where tiles of bfloat16 are multiplied (AMX), it takes all rows.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.neighbors.bfloat16_products import has_fast_bfloat16
from pipeline_lib.neighbors.block_threads import block_mapper, resolve_threads
from pipeline_lib.neighbors.bounds import RUN, BFloat16Bounds, Bounds, Float32Bounds, padded_rows
from pipeline_lib.neighbors.clusters import FEWEST_ROWS, Clusters
from pipeline_lib.neighbors.forms import MIDDLE_SIZE, MODERATE, Forms, QueryForms
from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT, shortening_error, squared_norms

PRODUCT_BYTES = 10 << 20  # of one thread; about what stays in cache
STEP_BYTES = 1 << 20  # of differences that are squared while they are in cache
QUERIES_OF_CLUSTERS = (16, 4096)  # fewest and most at a time
MOST_PAIRS = 1 << 22  # candidates that are held at a time
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

    Memory beside them: the short form (at most 260 values a row), for 512 and more dimensions 321 values more, and
    16 bytes a row, 24 with clusters; while searching about 20 MB a thread, with clusters up to 200 MB.
    """

    def __init__(self, rows: np.ndarray, *, threads: int | None = None) -> None:
        self.rows = rows
        self.threads = threads
        kind: type[Bounds] = BFloat16Bounds if has_fast_bfloat16() else Float32Bounds
        with block_mapper(threads):
            self.forms = forms = Forms(rows, longer=kind is BFloat16Bounds)
        error = shortening_error(forms.dim, forms.size) if forms.size < forms.dim else 0.0
        self.bounds = kind(len(rows), forms.size, error)
        self.middle = None if forms.middle_basis is None else np.empty((len(rows), MIDDLE_SIZE + 1), np.float32)
        self.squares = np.empty(len(rows))
        self._fill_forms()
        self.clusters: Clusters | None = None
        if isinstance(self.bounds, Float32Bounds) and len(rows) >= FEWEST_ROWS:
            self.clusters = Clusters(self.bounds, len(rows))

    def _fill_forms(self) -> None:
        """The rows' side of the product, and their middle form."""

        def fill(start: int) -> None:
            part = slice(start, min(start + 2048, len(self.rows)))
            short, middle, self.squares[part] = self.forms.of_rows(self.rows[part])
            self.bounds.put(part, short, self.squares[part])
            if self.middle is not None:
                self.middle[part] = middle

        with block_mapper(self.threads) as map_blocks:
            map_blocks(fill, range(0, len(self.rows), 2048))

    def revised(self, rows: np.ndarray, source: np.ndarray) -> ExactSearch:
        """The search in `rows` (row, dim): row i is own row `source[i]`, to the bit, or another one where that is -1.

        Forms, directions and clusters are those of this search, so that few rows have to be prepared.
        """
        new = np.flatnonzero(source < 0)
        short, middle, squares = self.forms.of_rows(rows[new])
        if squares.max(initial=0.0) > 1.0:
            return ExactSearch(rows, threads=self.threads)  # forms are for rows within the largest norm
        search = copy.copy(self)
        search.rows, search.squares = rows, self.squares[source]
        search.squares[new] = squares
        if self.middle is not None:
            search.middle = self.middle[source]
            search.middle[new] = middle
        places = source if self.clusters is None else np.argsort(self.clusters.order)[source]
        search.bounds = bounds = self.bounds.taken(places)
        bounds.put(new, short, squares)
        if self.clusters is not None and isinstance(bounds, Float32Bounds):
            search.clusters = self.clusters.revised(bounds, places, new)
        return search

    def search(self, queries: np.ndarray, num_neighbors: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(distances float32, not squared; indices int64), both (queries, k), nearest first, k at most the rows.

        `queries` are float32 (queries, dim), finite. Equal distances: the lowest index first.
        """
        kept = min(num_neighbors, len(self.rows))
        distances = np.empty((len(queries), kept), np.float32)
        indices = np.empty((len(queries), kept), np.int64)
        padded = padded_rows(len(self.rows))
        if clustered := self.clusters is not None and kept == 1:
            step = int(np.clip(-(-len(queries) // resolve_threads(self.threads)), *QUERIES_OF_CLUSTERS))
        else:
            step = int(np.clip(PRODUCT_BYTES // (self.bounds.dtype.itemsize * padded), 16, 512))
        buffers = threading.local()

        def search(start: int) -> None:
            if not clustered and not hasattr(buffers, "product"):
                buffers.product = np.empty(padded * step, self.bounds.dtype)
            part = slice(start, start + step)
            buffer = None if clustered else buffers.product
            distances[part], indices[part] = self._search_block(queries[part], kept, buffer)

        with block_mapper(self.threads) as map_blocks:
            map_blocks(search, range(0, len(queries), step))
        return distances, indices

    def _search_block(self, queries: np.ndarray, kept: int, buffer: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Distances of all rows whose bound leaves them a chance; by clusters where no buffer is given."""
        forms = self.forms.of_queries(queries)
        if not forms.squares.max() <= SAFE_NORM**2 or (self.forms.moderate and np.abs(queries).max() > MODERATE):
            return self._measure_all(queries, kept)
        if buffer is not None:
            rows, numbers, reach = self._candidates(queries, forms, kept, buffer)
        elif (found := self._clustered_candidates(queries, forms)) is not None:
            rows, numbers, reach = found
        else:
            half = len(queries) // 2
            first, second = (self._search_block(part, 1, None) for part in (queries[:half], queries[half:]))
            return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
        if self.middle is not None and len(rows) > 2 * kept * len(queries):
            rows, numbers = self._left_by_middle_forms(queries, forms, rows, numbers, reach, kept)
        at_least, at_most = self._measure32(queries, numbers, rows)
        keep = at_least <= _kth_smallest(at_most, numbers, len(queries), kept)[numbers]
        rows, numbers = rows[keep], numbers[keep]
        measured = _squared_differences(queries, numbers, self.rows, rows)
        return _first_of_each(measured, numbers, rows, len(queries), kept)

    def _candidates(
        self, queries: np.ndarray, forms: QueryForms, kept: int, buffer: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bounds of all: pairs (row, query number) within reach, and the squared reach of each query."""
        product, smallest = self.bounds.bounds(forms.short, forms.squares, buffer)
        rows, numbers = self._inside(*_promising(product, smallest, kept))
        reach = _kth_smallest(self._measure32(queries, numbers, rows)[1], numbers, len(queries), kept)
        limit = self.bounds.limit(self._reach(reach, forms.error), forms.squares)
        runs, numbers = _nonzero(smallest <= limit)
        return *self._inside(*_rows_of_runs(product, runs, numbers, limit[numbers])), reach

    def _clustered_candidates(
        self, queries: np.ndarray, forms: QueryForms
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The same for the nearest row, cluster by cluster; None where there are too many pairs to hold."""
        clusters = self.clusters
        assert clusters is not None
        left = clusters.bounds.left(forms.short)
        near, to_centers = clusters.nearby(left, forms.squares)
        numbers = np.repeat(np.arange(len(queries)), near.shape[1])
        reach = self._measure32(queries, numbers, clusters.order[near.reshape(-1)])[1].reshape(near.shape).min(axis=1)
        parts, pairs = [], 0
        for part in clusters.within(left, forms.squares, to_centers, self._reach(reach, forms.error)):
            parts.append(part)
            pairs += len(part[0])
            if pairs > MOST_PAIRS and len(queries) > QUERIES_OF_CLUSTERS[0]:
                return None
        return clusters.order[np.concatenate([p[0] for p in parts])], np.concatenate([p[1] for p in parts]), reach

    def _reach(self, squared: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Squared reach in forms, scaled, of a raw squared reach (query,) and the error of the queries' forms."""
        reach: np.ndarray = (np.sqrt(squared) * self.forms.scale + error) ** 2
        return reach

    def _inside(self, rows: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Without the rows that pad the last run, and by their own numbers."""
        inside = rows < len(self.rows)
        if not inside.all():
            rows, numbers = rows[inside], numbers[inside]
        return (rows if self.clusters is None else self.clusters.order[rows]), numbers

    def _measure32(self, queries: np.ndarray, numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (pairs,) from below and above of squared distances, by differences: float32 where nothing overflows.

        Each term is off by 3u of itself, their sum by dim u more (u = 2^-24), beside underflow.
        """
        if not self.forms.moderate:
            squares = _squared_differences(queries, numbers, self.rows, rows)
            return squares, squares
        squares = np.empty(len(numbers))
        for part in _steps(len(numbers), 4 * self.rows.shape[1]):
            difference = queries[numbers[part]]
            difference -= self.rows[rows[part]]
            squares[part] = squared_norms(difference)
        dim = self.rows.shape[1]
        error = squares * ((dim + 8) * FLOAT32_UNIT) + dim * 1e-37
        return squares - error, squares + error

    def _left_by_middle_forms(
        self,
        queries: np.ndarray,
        forms: QueryForms,
        rows: np.ndarray,
        numbers: np.ndarray,
        reach: np.ndarray,
        kept: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs that the middle forms do not rule out, within a reach that the nearest by these forms shorten first."""
        assert self.middle is not None
        assert forms.middle is not None
        unit = (MIDDLE_SIZE + 16) * FLOAT32_UNIT + shortening_error(self.rows.shape[1], MIDDLE_SIZE)
        bounds = np.empty(len(rows))
        for part in _steps(len(rows), 4 * self.middle.shape[1]):
            difference = self.middle[rows[part]]
            difference -= forms.middle[numbers[part]]
            margin = unit * (forms.squares[numbers[part]] + self.squares[rows[part]]) + 1e-37
            bounds[part] = squared_norms(difference) - margin
        nearest = bounds <= _kth_smallest(bounds, numbers, len(queries), kept)[numbers]
        _, at_most = self._measure32(queries, numbers[nearest], rows[nearest])
        reach = np.minimum(reach, _kth_smallest(at_most, numbers[nearest], len(queries), kept))
        keep = bounds <= self._reach(reach, forms.middle_error)[numbers]
        return rows[keep], numbers[keep]

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


def _steps(pairs: int, bytes_of_each: int) -> Iterator[slice]:
    """Slices of pairs, a few at a time."""
    step = max(32, STEP_BYTES // bytes_of_each)
    return (slice(start, start + step) for start in range(0, pairs, step))


def _nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`mask.nonzero()`, faster for few hits."""
    return np.divmod(np.flatnonzero(mask.reshape(-1)), mask.shape[1])


def _promising(product: np.ndarray, smallest: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, query number): at least `kept` rows of each query whose products are small.

    For one neighbour the row of the smallest; for more, those of the smallest of many groups of runs, less the far
    ones; every row where there are too few for that.
    """
    runs, queries = smallest.shape
    if kept == 1:
        chosen, numbers = _nonzero(smallest <= smallest.min(axis=0))
        return _rows_of_runs(product, chosen, numbers, smallest[chosen, numbers])
    size = max(1, runs // (8 * kept))
    groups = runs // size
    if groups < 2 * kept:
        return _nonzero(np.ones(product.shape, bool))
    grouped = smallest[: groups * size].reshape(groups, size, queries)
    least = grouped.min(axis=1)
    kth = np.partition(least, kept - 1, axis=0)[kept - 1]
    chosen, numbers = _nonzero(((grouped == least[:, None]) & (least <= kth)[:, None]).reshape(-1, queries))
    return _rows_of_runs(product, chosen, numbers, smallest[chosen, numbers])


def _rows_of_runs(
    product: np.ndarray, runs: np.ndarray, numbers: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, query number) of the given runs (pairs,) whose product is at most `limit` (pairs,)."""
    rows = runs[:, None] * RUN + np.arange(RUN)
    pair, within = np.nonzero(product[rows, numbers[:, None]] <= limit[:, None])
    return rows[pair, within], numbers[pair]


def _squared_differences(queries: np.ndarray, numbers: np.ndarray, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """float64 (pairs,): |queries[numbers] - rows[chosen]|^2 by direct differences."""
    result = np.empty(len(numbers))
    for part in _steps(len(numbers), 8 * rows.shape[1]):
        difference = queries[numbers[part]].astype(np.float64)
        difference -= rows[chosen[part]]
        result[part] = squared_norms(difference)
    return result


def _kth_smallest(values: np.ndarray, numbers: np.ndarray, queries: int, kept: int) -> np.ndarray:
    """The `kept`-th smallest of each query's values, (queries,); every query has that many."""
    if kept == 1:
        result = np.full(queries, np.inf)
        np.minimum.at(result, numbers, values)
        return result
    order = np.argsort(numbers.astype(np.int16), kind="stable")
    counts = np.bincount(numbers, minlength=queries)
    ordered = numbers[order]
    padded = np.full((queries, counts.max()), np.inf)
    padded[ordered, np.arange(len(order)) - (np.cumsum(counts) - counts)[ordered]] = values[order]
    return np.asarray(np.partition(padded, kept - 1, axis=1)[:, kept - 1])


def _first_of_each(
    squares: np.ndarray, numbers: np.ndarray, rows: np.ndarray, queries: int, kept: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows of the `kept` nearest pairs of each query, (queries, kept)."""
    order = np.lexsort((rows, squares, numbers))
    first = np.searchsorted(numbers[order], np.arange(queries))
    chosen = order[first[:, None] + np.arange(kept)]
    return np.sqrt(squares[chosen]).astype(np.float32), rows[chosen]
