"""Exact greedy k-center on a GPU: the plain loop, a pass over all rows for every pick.

A GPU reads its memory so fast that nothing is gained by leaving rows out. Distances are direct differences in float64,
as those that decide on the CPU, so that the picks are the same but for ties within rounding (1e-15).
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import CoresetSelection, Progress, check_features
from pipeline_lib.when_needed import torch

FREE_SHARE = 0.6  # of the free memory that the rows may take in float64; else they are converted block by block
BLOCK_BYTES = 512 << 20
PICKS_PER_REPORT = 256
logger = logging.getLogger(__name__)


def kcenter_selection(
    features: np.ndarray,
    target_size: int,
    *,
    device: torch.device | None,
    rng: np.random.Generator,
    initial_centers: np.ndarray | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
) -> CoresetSelection:
    """`greedy_coreset_selection`, on the GPU where `device` is one; on the CPU where its memory runs out."""
    if device is not None and device.type == "cuda":
        state = rng.bit_generator.state
        try:
            return select_on_device(
                features, target_size, device=device, rng=rng, initial_centers=initial_centers, progress=progress
            )
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            rng.bit_generator.state = state
            logger.warning("out of GPU memory selecting from %d rows, going on with the CPU", len(features))
    return greedy_coreset_selection(
        features, target_size, rng=rng, initial_centers=initial_centers, progress=progress, scratch=scratch
    )


def select_on_device(
    features: np.ndarray,
    target_size: int,
    *,
    device: torch.device,
    rng: np.random.Generator,
    initial_centers: np.ndarray | None = None,
    progress: Progress | None = None,
) -> CoresetSelection:
    """As `greedy_coreset_selection` without quotas, on `device`.

    Raises also torch.OutOfMemoryError where rows do not fit there.
    """
    check_features(features, target_size)
    rows = _Rows(features, device)
    nearest = torch.full((len(features),), torch.inf, dtype=torch.float64, device=device)
    for center in [] if initial_centers is None else initial_centers:
        rows.lower(nearest, torch.from_numpy(center.astype(np.float64)).to(device))
    start = None if initial_centers is not None and len(initial_centers) else int(rng.integers(len(features)))
    indices = np.empty(target_size, np.int64)
    squares = np.empty(target_size)
    selected = torch.zeros(len(features), dtype=torch.bool, device=device)
    number = torch.arange(len(features), device=device)
    for pick in range(target_size):
        if pick == 0 and start is not None:
            row, square = start, np.inf
        else:
            bounds = torch.where(selected, -1.0, nearest)
            largest = bounds.max()
            first = torch.where(bounds == largest, number, len(features)).min()
            row, square = int(first), float(largest)
        indices[pick], squares[pick] = row, square
        selected[row] = True
        rows.lower(nearest, rows.one(row))
        if progress is not None and (pick + 1 == target_size or (pick + 1) % PICKS_PER_REPORT == 0):
            progress(pick + 1, target_size)
    left = torch.where(selected, 0.0, nearest)
    return CoresetSelection(indices, float(left.max().clamp(min=0).sqrt()), np.sqrt(squares))


class _Rows:
    """The rows on the device: in float64 where that fits, else as they came, converted when used."""

    def __init__(self, features: np.ndarray, device: torch.device) -> None:
        values = torch.from_numpy(np.ascontiguousarray(features))
        if device.type != "cuda" or features.size * 8 < FREE_SHARE * torch.cuda.mem_get_info(device)[0]:
            values = values.to(device).double()
        self.values = values.to(device)
        self.step = max(1, BLOCK_BYTES // (8 * features.shape[1]))

    def one(self, row: int) -> torch.Tensor:
        """float64 (dim,)."""
        return self.values[row].double()

    def lower(self, nearest: torch.Tensor, center: torch.Tensor) -> None:
        """Lower `nearest` (rows,) to the squared distances to `center` (dim,) where those are smaller."""
        for start in range(0, len(nearest), self.step):
            part = self.values[start : start + self.step].double()
            distances = torch.cdist(part, center[None], compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
            block = nearest[start : start + self.step]
            torch.minimum(block, distances * distances, out=block)
