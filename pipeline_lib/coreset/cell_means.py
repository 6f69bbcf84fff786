"""Rows as means of their cells: Lloyd's step from a selection, and the merge of such rows by their counts.

k-center takes the points farthest away, which are outliers; the mean of the points nearest to a pick lies among them.
Every step lowers the sum of squared distances, or leaves it (Lloyd 1982); a selection by k-center in place of a draw
is what k-means++ (Arthur & Vassilvitskii 2007) softens. Points are assigned by exact search, of equals to the lowest
row, and added up in float64 in their order, so that the means are the same bytes for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline_lib.neighbors.exact import ExactSearch, check_matrix, exact_distances
from pipeline_lib.neighbors.halves import widened

BLOCK_ROWS = 8192  # points that are held in float64 at a time


@dataclass(frozen=True)
class Cells:
    """Rows and the points that each stands for."""

    means: np.ndarray  # float32 (row, dim); an empty cell's row stays where it was
    counts: np.ndarray  # int64 (row,): points of its cell; 0 for an empty one
    cell: np.ndarray  # int32 (point,): the row that it went into, -1 where that is a fixed center
    covering_radius: float  # largest distance of a point to the mean, or the fixed center, that it went to


def cell_means(
    patches: np.ndarray,
    rows: np.ndarray,
    *,
    fixed: np.ndarray | None = None,
    steps: int = 1,
    threads: int | None = None,
) -> Cells:
    """Move selected `rows` (row, dim) to the means of the `patches` (patch, dim) nearest to them, `steps` times.

    `fixed` (center, dim) are centers that stay where they are, take their patches away, and come first among equals.
    Cells are those of the last step: each mean is that of its cell. After one step no patch lies further from its mean
    than twice as far as any did from its row; each further step at most doubles that again. Memory: 12 bytes a value of
    the rows beside the search's own, and 4 bytes a patch. Raises FedpatchError for values that are not finite.
    """
    kept = np.empty((0, patches.shape[1]), np.float32) if fixed is None else fixed.astype(np.float32)
    means = rows.astype(np.float32)
    for _ in range(steps):
        nearest = _nearest(patches, np.concatenate([kept, means]), threads) - np.int32(len(kept))
        cell = np.maximum(nearest, np.int32(-1))
        counts = np.bincount(cell[cell >= 0], minlength=len(means)).astype(np.int64)
        means = means_of(sums_of_cells(patches, cell, len(means)), counts, empty=means)
    radius = _largest_distance(patches, np.concatenate([kept, means]), nearest + np.int32(len(kept)))
    return Cells(means, counts, cell, radius)


def move_rows(rows: np.ndarray, counts: np.ndarray, kept: np.ndarray, *, threads: int | None = None) -> Cells:
    """Move the `kept` (kept,) of the rows (row, dim) to the means of all rows nearest to them, weighted by `counts`.

    counts: int64 (row,), what each row stands for; those of the rows that go into one add up. Raises FedpatchError for
    values that are not finite.
    """
    centers = rows[kept]
    cell = _nearest(rows, centers, threads)
    totals = np.zeros(len(centers), np.int64)
    np.add.at(totals, cell, counts)
    means = means_of(sums_of_cells(rows, cell, len(centers), weights=counts), totals, empty=centers)
    return Cells(means, totals, cell, _largest_distance(rows, means, cell))


def sums_of_cells(
    points: np.ndarray, cell: np.ndarray, n_rows: int, *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Sum of the points (point, dim) of each cell, times their weights, in order: float64 (row, dim).

    cell (point,): the row of each point, negative where it has none.
    """
    sums = np.zeros((n_rows, points.shape[1]))
    for block in _blocks(len(points)):
        values = widened(points[block], np.float64)
        if weights is not None:
            values = values * weights[block, None]
        for row, value in zip(cell[block].tolist(), values, strict=True):  # numpy's own sums have no fixed order
            if row >= 0:
                sums[row] += value
    return sums


def means_of(sums: np.ndarray, counts: np.ndarray, *, empty: np.ndarray) -> np.ndarray:
    """float32 (row, dim): sums (row, dim) over counts (row,); the row of `empty` (row, dim) where the count is 0."""
    is_empty = counts == 0
    means: np.ndarray = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    means[is_empty] = empty[is_empty]
    return means


def _nearest(points: np.ndarray, centers: np.ndarray, threads: int | None) -> np.ndarray:
    """The nearest of the centers (center, dim) to each point, int32 (point,); of equals the lowest."""
    search = ExactSearch(check_matrix(centers, name="centers", dim=points.shape[1]), threads=threads)
    nearest = np.empty(len(points), np.int32)
    for block in _blocks(len(points)):
        nearest[block] = search.search(check_matrix(points[block], name="features"))[1][:, 0]
    return nearest


def _largest_distance(points: np.ndarray, centers: np.ndarray, cell: np.ndarray) -> float:
    return max(
        float(exact_distances(widened(points[block]), centers, cell[block, None]).max())
        for block in _blocks(len(points))
    )


def _blocks(n_points: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, n_points, BLOCK_ROWS))
