"""What the bootstrap of the category and of its subsets starts from: per-image counts on grids of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline_lib.metrics.spro.areas import lifts
from pipeline_lib.metrics.spro.defective_images import Collected
from pipeline_lib.metrics.spro.image_counts import ImageCounts, score_grid
from pipeline_lib.metrics.spro.normal_pixels import NormalCounts
from pipeline_lib.metrics.spro.records import WHOLE, SubsetKey

SPLIT_GRID_SCORES = 200
"""The area of a split's curve on the bootstrap's grid is within half of 1 / 200 of the exact one."""


def bootstrap_grids(
    keys: np.ndarray, collected: Collected, subsets: Sequence[SubsetKey], grid_scores: int
) -> dict[SubsetKey, np.ndarray]:
    """Keys (indices, descending) between which each subset's own curve rises little; empty for no grid scores."""
    grids: dict[SubsetKey, np.ndarray] = {}
    for subset in subsets if grid_scores else ():
        channels = [channel for channel in collected.channels if subset in channel.subsets]
        scores = grid_scores if subset == WHOLE else min(grid_scores, SPLIT_GRID_SCORES)
        grids[subset] = score_grid(lifts(keys, channels, weighted=False), scores)
    return grids


def image_counts(collected: Collected, subset: SubsetKey, normal: NormalCounts, positions: np.ndarray) -> ImageCounts:
    """What a bootstrap needs, by image: the good ones and those of `subset`, at these positions of the grid."""
    grid = normal.grid[positions]
    spro_sum = np.zeros((len(normal.n_normal_px), 2 * len(grid)))
    n_channels = np.zeros(len(spro_sum), np.int64)
    for channel in collected.channels:
        if subset not in channel.subsets:
            continue
        found = np.empty(2 * len(grid))
        found[0::2] = len(channel.top) - np.searchsorted(channel.top, grid, side="right")
        found[1::2] = len(channel.top) - np.searchsorted(channel.top, grid, side="left")
        spro_sum[channel.image] += found / channel.saturation_area_px
        n_channels[channel.image] += 1
    columns = np.stack([2 * positions, 2 * positions + 1], axis=1).reshape(-1)
    counted = np.array([not group or subset in group for group in collected.subsets])
    normal_above = normal.grid_above[:, columns]
    normal_above[~counted] = 0
    return ImageCounts(normal_above, spro_sum, np.where(counted, normal.n_normal_px, 0), n_channels)
