"""Coresets of feature matrices that come in shards: select in each, then among what was kept.

Merge and reduce (Har-Peled & Mazumdar 2004; for k-center Malkomes et al. 2015, "Fast distributed k-center clustering
with outliers"): coresets compose. The union of the shards' coresets covers all rows within the largest shard radius,
and a selection from that union covers the union within its own radius, so that the sum of the two covers all rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.kcenter import greedy_coreset_selection

OVERSAMPLING = 2.0


@dataclass(frozen=True)
class StreamedCoreset:
    """Rows chosen from a stream of shards.

    `indices` count through the shards in their order. `radius_bound` is not below the covering radius of the rows
    over everything that was seen; `features` are the rows themselves.
    """

    indices: np.ndarray  # int64, (selected,)
    features: np.ndarray  # (selected, dim), dtype of the shards
    radius_bound: float


def streaming_coreset_selection(
    shards: Iterable[np.ndarray],
    target_size: int,
    *,
    rng: np.random.Generator,
    oversampling: float = OVERSAMPLING,
    threads: int | None = None,
) -> StreamedCoreset:
    """Greedy k-center over shards (rows, dim) that are never in memory together, such as memory-mapped files.

    Each shard is reduced to `oversampling` x `target_size` rows (all, if it has fewer); whenever twice that many are
    held, they are reduced to it again. The result is near the selection from all rows at once, not equal to it:
    `radius_bound` adds up what each reduction cost. Memory: one shard, and 3 x oversampling x target_size rows.

    Raises FedpatchError for shards that do not fit together, fewer rows than `target_size`, or bad values.
    """
    if target_size < 1 or oversampling < 1:
        raise FedpatchError(f"target_size {target_size} and oversampling {oversampling} must both be at least 1")
    budget = max(target_size, round(oversampling * target_size))
    held: list[np.ndarray] = []
    held_indices: list[np.ndarray] = []
    radius = 0.0
    seen = 0
    for number, shard in enumerate(shards):
        if held and (shard.ndim != 2 or shard.shape[1] != held[0].shape[1] or shard.dtype != held[0].dtype):
            raise FedpatchError(
                f"shard {number} is {shard.dtype} of shape {shard.shape}; the ones before are "
                f"{held[0].dtype} with {held[0].shape[1]} dimensions"
            )
        if not len(shard):
            continue
        selection = greedy_coreset_selection(shard, min(budget, len(shard)), rng=rng, threads=threads)
        # What is held covers the rows before within `radius`; the shard's rows are covered within its own.
        radius = max(radius, selection.covering_radius)
        held.append(np.asarray(shard[selection.indices]))
        held_indices.append(selection.indices + seen)
        seen += len(shard)
        if sum(map(len, held)) >= 2 * budget:
            rows, indices, reduced = _reduce(held, held_indices, budget, rng=rng, threads=threads)
            held, held_indices, radius = [rows], [indices], radius + reduced
    if seen < target_size:
        raise FedpatchError(f"a coreset of {target_size} rows was asked for, but the shards hold {seen}")
    rows, indices, reduced = _reduce(held, held_indices, target_size, rng=rng, threads=threads)
    return StreamedCoreset(indices, rows, radius + reduced)


def _reduce(
    held: list[np.ndarray], held_indices: list[np.ndarray], size: int, *, rng: np.random.Generator, threads: int | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """`size` of the rows held, their indices, and the radius within which they cover the others."""
    rows, indices = np.concatenate(held), np.concatenate(held_indices)
    selection = greedy_coreset_selection(rows, size, rng=rng, threads=threads)
    return rows[selection.indices], indices[selection.indices], selection.covering_radius
