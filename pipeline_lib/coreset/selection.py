"""What a coreset selection returns, and the checks that every selector makes on its input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from data_contracts.errors import FedpatchError

Progress = Callable[[int, int], None]  # (rows chosen so far, rows to choose)


@dataclass(frozen=True)
class CoresetSelection:
    """Rows chosen from a feature matrix.

    A coreset is indices into its source: `features[selection.indices]` are its rows.
    Raises FedpatchError when an index appears twice or is negative.
    """

    indices: np.ndarray  # int64, (selected,): in order of selection
    covering_radius: float  # largest distance (not squared) of any source row to its nearest selected row
    pick_distances: np.ndarray = field(default_factory=lambda: np.empty(0))
    """float64, (selected,): distance of each pick to the rows selected before it, which is the covering radius that
    they had; the first is infinite. Never rises for k-center. Empty for the random and density controls."""

    def __post_init__(self) -> None:
        if len(self.indices) and (self.indices.min() < 0 or len(np.unique(self.indices)) != len(self.indices)):
            raise FedpatchError("a coreset selection names a row twice, or a negative row; this is a fault in fedpatch")

    def __len__(self) -> int:
        return len(self.indices)


def check_features(features: np.ndarray, target_size: int) -> None:
    """Refuse what no selector accepts; whether the values are finite is checked where they are first read."""
    if features.ndim != 2 or features.shape[1] == 0 or features.dtype not in (np.float16, np.float32, np.float64):
        raise FedpatchError(
            f"features are {features.dtype} of shape {features.shape}; a coreset is selected from a float16, float32 "
            "or float64 matrix (rows, dimensions)"
        )
    if not 1 <= target_size <= len(features):
        raise FedpatchError(
            f"a coreset of {target_size} rows was asked for out of {len(features)}; give from 1 to {len(features)}"
        )


def check_centers(centers: np.ndarray | None, dim: int) -> np.ndarray:
    """The places that are covered already, (centers, dim), none of them unless given; FedpatchError for others."""
    if centers is None:
        return np.empty((0, dim), np.float16)
    if centers.ndim != 2 or centers.shape[1] != dim or centers.dtype.kind != "f":
        raise FedpatchError(
            f"initial_centers are {centers.dtype} of shape {centers.shape}; give floats (centers, {dim}), as features"
        )
    if not np.isfinite(centers).all():
        raise FedpatchError("initial_centers hold NaN or infinity; they must be finite")
    return centers


def refuse_non_finite(features: np.ndarray, *, rows_per_block: int = 65536) -> None:
    """Raise FedpatchError, naming the first row, when a value is NaN or infinite."""
    for start in range(0, len(features), rows_per_block):
        bad = np.flatnonzero(~np.isfinite(features[start : start + rows_per_block]).all(axis=1))
        if len(bad):
            raise FedpatchError(
                f"features hold NaN or infinity, first in row {start + int(bad[0])}; "
                "a coreset needs finite values: check the images and the backbone's precision"
            )


def coreset_size(ratio: float, n_patches: int, *, round_up: bool = False) -> int:
    """round(ratio x patches), at least 1 and at most all.

    A client rounds up, so that the clients of a federation together have as many rows as the baseline keeps.
    """
    wanted = math.ceil(ratio * n_patches - 1e-9) if round_up else round(ratio * n_patches)
    return min(n_patches, max(1, wanted))
