"""A selection in shards of whole images, where one over all patches would take days.

Greedy k-center costs patches x rows. Of images that are dealt out to shards, each selecting its share from its own
patches, the cost grows with the patches alone. It is what a federation of as many clients does: coresets compose
(Indyk et al. 2014), and the rows of all shards cover every patch within the largest of the shards' radii.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pipeline_lib.coreset.cell_means import Cells, cell_means
from pipeline_lib.coreset.selection import CoresetSelection, Progress

Select = Callable[[np.ndarray, int, Progress | None], CoresetSelection]  # (patches, size, progress)


def shard_count(patches: float, shard_patches: int | None) -> int:
    """Shards of at most about `shard_patches` that so many patches make; one without it."""
    return 1 if shard_patches is None else max(1, math.ceil(patches / shard_patches))


def image_shards(patch_counts: Sequence[int] | np.ndarray, size: int, shard_patches: int | None) -> list[np.ndarray]:
    """Patches (ascending indices) of each shard: images dealt out in turn, so that each shard sees all times alike.

    As many shards of about `shard_patches` as the images allow, at most `size`, the rows to select; one without it.
    """
    counts = np.asarray(patch_counts, np.int64)
    total = int(counts.sum())
    filled = np.cumsum(counts > 0) - 1
    shards = max(1, min(shard_count(total, shard_patches), size, int((counts > 0).sum())))
    shard = np.repeat(filled % shards, counts)
    return [np.flatnonzero(shard == number) for number in range(shards)]


def select_by_shards(
    patches: np.ndarray, shards: Sequence[np.ndarray], size: int, select: Select, *, progress: Progress | None = None
) -> CoresetSelection:
    """`size` of the patches (patch, dim), of each shard by `select` as many as it has patches, at least one.

    `covering_radius` is the largest of the shards'; `pick_distances` are to the picks of the same shard.
    """
    if len(shards) == 1:
        return select(patches, size, progress)
    free = np.array([len(shard) - 1 for shard in shards])
    ends = np.concatenate([[0], np.cumsum(free)]) * (size - len(shards)) // max(1, int(free.sum()))
    found: list[CoresetSelection] = []
    done = 0
    for shard, own in zip(shards, (np.diff(ends) + 1).tolist(), strict=True):
        further = None if progress is None else (lambda n, _, before=done: progress(before + n, size))
        selection = select(patches[shard], own, further)
        found.append(CoresetSelection(shard[selection.indices], selection.covering_radius, selection.pick_distances))
        done += own
    return CoresetSelection(
        np.concatenate([one.indices for one in found]),
        max(one.covering_radius for one in found),
        np.concatenate([one.pick_distances for one in found]),
    )


def cells_by_shards(
    patches: np.ndarray, shards: Sequence[np.ndarray], indices: np.ndarray, *, fixed: np.ndarray | None, steps: int
) -> Cells:
    """`cell_means` of the rows patches[indices], each shard's patches going to rows of their own shard.

    Raises FedpatchError for values that are not finite.
    """
    if len(shards) == 1:
        return cell_means(patches, patches[indices], fixed=fixed, steps=steps)
    means = patches[indices].astype(np.float32)
    counts = np.zeros(len(indices), np.int64)
    cell = np.empty(len(patches), np.int32)
    radius = 0.0
    for shard in shards:
        own = np.flatnonzero(np.isin(indices, shard))
        cells = cell_means(patches[shard], means[own], fixed=fixed, steps=steps)
        means[own], counts[own] = cells.means, cells.counts
        cell[shard] = np.append(own, -1)[cells.cell]  # -1, a fixed center, stays -1
        radius = max(radius, cells.covering_radius)
    return Cells(means, counts, cell, radius)
