"""Approximate indexes of faiss over a bank's rows."""

from __future__ import annotations

import logging
from typing import Any, Literal

import faiss
import numpy as np

from data_contracts.errors import FedpatchError

logger = logging.getLogger(__name__)
Search = Literal["exact", "ivf", "hnsw", "pq"]
SMALLEST_INDEX = 64  # rows below which an approximate index has nothing to learn from


def build_index(features: np.ndarray, search: str, *, seed: int) -> Any:
    """A trained approximate faiss index over the rows minus their mean; a small bank gets a coarser one."""
    rows, dim = features.shape
    centered = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    index: Any
    if rows < SMALLEST_INDEX:
        search = "flat"
    match search:
        case "flat":
            index = faiss.IndexFlatL2(dim)
        case "ivf":
            lists = int(np.clip(4 * np.sqrt(rows), 1, max(1, rows // 39)))
            index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, lists)
            index.nprobe = max(1, min(lists, 8 + lists // 16))
            index.cp.seed = seed
            index.cp.min_points_per_centroid = 1
        case "hnsw":
            index = faiss.IndexHNSWFlat(dim, 32)
            index.hnsw.efConstruction, index.hnsw.efSearch = 80, 96
        case "pq":
            parts = max(p for p in range(1, min(dim, 64) + 1) if dim % p == 0)
            bits = int(np.clip(np.log2(max(2, rows // 39)), 1, 8))
            index = faiss.IndexPQ(dim, parts, bits)
            index.pq.cp.seed = seed
            index.pq.cp.min_points_per_centroid = 1
        case _:
            raise FedpatchError(f"search is {search!r}; an approximate index is one of ivf, hnsw, pq")
    index.train(centered)
    index.add(centered)
    logger.debug("built a %s index over %d rows of %d dimensions", search, rows, dim)
    return index
