"""Exact nearest neighbours by blocked search, without an index library."""

from __future__ import annotations

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.block_threads import block_mapper

QUERIES_PER_BLOCK = 256
ROWS_PER_BLOCK = 4096


def check_matrix(matrix: np.ndarray, *, name: str, dim: int | None = None) -> np.ndarray:
    """The matrix as C-ordered float32. Raises FedpatchError when it is no finite (rows, dim) matrix."""
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or matrix.shape[1] == 0:
        raise FedpatchError(f"{name}: got {matrix.dtype} of shape {matrix.shape}; expected floats (rows, dimensions)")
    if dim is not None and matrix.shape[1] != dim:
        raise FedpatchError(
            f"{name}: got {matrix.shape[1]} dimensions, the bank has {dim}; use the same backbone and layers for both"
        )
    result = np.ascontiguousarray(matrix, dtype=np.float32)
    if not np.isfinite(result).all():
        bad = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
        raise FedpatchError(f"{name}: NaN or infinity, first in row {bad}; distances need finite float32 values")
    return result


def exact_distances(queries: np.ndarray, bank: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Distances by direct differences in float64, as float32 (queries, k), to the bank rows `indices` (queries, k)."""
    result = np.empty(indices.shape, np.float64)
    step = max(1, (4 << 20) // (queries.shape[1] * indices.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        difference = bank[indices[part]].astype(np.float64)
        difference -= queries[part, None, :]
        result[part] = np.einsum("qkd,qkd->qk", difference, difference)
    distances: np.ndarray = np.sqrt(result).astype(np.float32)
    return distances


def brute_force_neighbors(
    queries: np.ndarray, bank: np.ndarray, *, num_neighbors: int = 1, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `num_neighbors` nearest bank rows of each query: (distances float32, indices int64), (queries, k) ascending.

    A float32 product of centered rows names candidates; those that its rounding margin (see pipeline_lib.coreset)
    cannot tell apart are measured by direct differences in float64. Equal distances: the lowest index first.
    """
    center = bank.mean(axis=0, dtype=np.float64)
    longest = max(float(np.abs(bank - center).max(initial=0)), float(np.abs(queries - center).max(initial=0)), 1e-300)
    scale = 2.0 ** -float(np.frexp(longest)[1])
    rows64 = (bank - center) * scale
    rows32 = rows64.astype(np.float32)
    row_squares = np.einsum("ij,ij->i", rows64, rows64)
    kept = min(len(bank), num_neighbors)
    unit = (bank.shape[1] + 16) * 2.0**-24

    def search(start: int) -> tuple[np.ndarray, np.ndarray]:
        block = (queries[start : start + QUERIES_PER_BLOCK] - center) * scale
        squares = np.einsum("ij,ij->i", block, block)
        approximate = block.astype(np.float32) @ rows32.T
        approximate *= -2
        approximate += row_squares.astype(np.float32)
        kth = np.partition(approximate, kept - 1, axis=1)[:, kept - 1].astype(np.float64)
        margin = unit * (squares + 2 * np.minimum(row_squares.max(), 4 * (squares + np.maximum(kth + squares, 0))))
        distances = np.empty((len(block), kept))
        indices = np.empty((len(block), kept), np.int64)
        for i, row in enumerate(approximate):
            near = np.flatnonzero(row <= np.float32(kth[i] + 2 * margin[i] + 1e-37))
            difference = rows64[near] - block[i]
            exact = np.einsum("ij,ij->i", difference, difference)
            order = np.argsort(exact, kind="stable")[:kept]
            distances[i], indices[i] = exact[order], near[order]
        return np.sqrt(distances) / scale, indices

    with block_mapper(threads) as map_blocks:
        parts = map_blocks(search, range(0, len(queries), QUERIES_PER_BLOCK))
    if not parts:
        return np.empty((0, kept), np.float32), np.empty((0, kept), np.int64)
    return np.concatenate([p[0] for p in parts]).astype(np.float32), np.concatenate([p[1] for p in parts])
