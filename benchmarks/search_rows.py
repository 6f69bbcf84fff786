"""Exact nearest neighbours against faiss.IndexFlatL2."""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np

from benchmarks.checks import distances_are_exact, nearest_distances
from benchmarks.real_features import Kind, bank, features
from benchmarks.rows import Row, paired, seconds
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.neighbors.bfloat16_products import has_fast_bfloat16

SIZES, QUICK_SIZES = (20_000, 100_000, 8_192), (4_000, 20_000, 4_096)  # bank, out of training patches, queries


def search_wide(*, quick: bool) -> list[Row]:
    """1,536 dimensions, bank of 20,000."""
    return _rows("search_wide", "wide", wanted=3 if has_fast_bfloat16() else 4, quick=quick)


def search_152(*, quick: bool) -> list[Row]:
    """152 dimensions, bank of 20,000."""
    return _rows("search_152", "narrow", wanted=1.5 if has_fast_bfloat16() else 1.7, quick=quick)


def own_side(name: str, *, quick: bool) -> Callable[[], np.ndarray]:
    """The row's search in the bank of ball screws, ready to be timed; distances and rows."""
    kind: Kind = "wide" if name == "search_wide" else "narrow"
    rows, out_of, n_queries = QUICK_SIZES if quick else SIZES
    own = MemoryBank(bank(kind, "ballscrew", rows=rows, out_of=out_of))
    queries = features(kind, "ballscrew", "test", rows=n_queries)
    return lambda: np.concatenate(own.query(queries), axis=1)


def _rows(name: str, kind: Kind, *, wanted: float, quick: bool) -> list[Row]:
    rows, out_of, n_queries = QUICK_SIZES if quick else SIZES
    result = []
    for category in ("ballscrew", "magnetic_tile")[: 1 if quick else 2]:
        memory = bank(kind, category, rows=rows, out_of=out_of)
        queries = features(kind, category, "test", rows=n_queries)
        own = MemoryBank(memory)
        peer = faiss.IndexFlatL2(memory.shape[1])
        peer.add(memory)
        true = nearest_distances(queries, memory)
        equal, error = distances_are_exact(own.query(queries)[0][:, 0], true, queries)
        peer_distances = np.sqrt(np.maximum(peer.search(queries, 1)[0][:, 0], 0))
        pairs = paired(
            lambda: seconds(lambda: own.query(queries)),  # noqa: B023, called in this turn
            lambda: seconds(lambda: peer.search(queries, 1)),  # noqa: B023
            repetitions=3 if quick else 7,
        )
        built = seconds(lambda: MemoryBank(memory).exact_search)  # noqa: B023
        result.append(
            pairs.row(
                name,
                f"faiss {faiss.__version__} IndexFlatL2",
                wanted=wanted,
                equal_results=equal,
                work=f"{len(queries)} queries, bank {memory.shape[0]} x {memory.shape[1]} ({kind}, {category})",
                largest_error_of_allowed=round(error, 4),
                peer_largest_error_of_allowed=round(distances_are_exact(peer_distances, true, queries)[1], 4),
                own_build_s=round(built, 3),
            )
        )
    return result
