"""A feature matrix seen in centered, scaled float64 coordinates, block by block, without a copy of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from data_contracts.errors import FedpatchError

ROWS_PER_BLOCK = 4096
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


class CenteredFeatures:
    """Rows of `features` minus their mean, times a power of two that brings the longest row to a norm near 1.

    Subtraction is in float64, so the distance of two rows is theirs to about 1e-15 of it whatever the offset, and
    scaling by a power of two changes no digit. `squared_norms` is float64 (rows,), in these coordinates.
    Raises FedpatchError when a value is not finite.
    """

    def __init__(self, features: np.ndarray, map_blocks: Mapper) -> None:
        self.features = features
        rows, self.dim = features.shape
        self.blocks = [slice(start, min(rows, start + ROWS_PER_BLOCK)) for start in range(0, rows, ROWS_PER_BLOCK)]
        with np.errstate(over="ignore", invalid="ignore"):
            sums = map_blocks(lambda block: features[block].sum(axis=0, dtype=np.float64), self.blocks)
            self.mean: np.ndarray = np.sum(sums, axis=0) / rows
        if not np.isfinite(self.mean).all():
            self._refuse_non_finite()
        self.scale = 1.0
        with np.errstate(over="ignore"):
            norms = map_blocks(lambda block: squared_norms(self.rows(block)), self.blocks)
        self.squared_norms: np.ndarray = np.concatenate(norms)
        longest = float(np.sqrt(self.squared_norms.max()))
        if not np.isfinite(longest):
            raise FedpatchError("features are too large: the squares of their distances overflow; rescale them")
        if longest > 0:
            self.scale = 2.0 ** -np.frexp(longest)[1]
            self.squared_norms *= self.scale**2

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, index: slice | np.ndarray | int) -> np.ndarray:
        """float64 rows in the centered, scaled coordinates."""
        return self.transform(self.features[index])

    def transform(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows (from anywhere) in the centered, scaled coordinates."""
        result: np.ndarray = raw.astype(np.float64)
        result -= self.mean
        result *= self.scale
        return result

    def _refuse_non_finite(self) -> None:
        for block in self.blocks:
            bad = np.flatnonzero(~np.isfinite(self.features[block]).all(axis=1))
            if len(bad):
                raise FedpatchError(
                    f"features hold NaN or infinity, first in row {block.start + int(bad[0])}; "
                    "a coreset needs finite values: check the images and the backbone's precision"
                )
        raise FedpatchError("features are too large: their sum overflows; rescale them")


def squared_norms(rows: np.ndarray) -> np.ndarray:
    """Sum of squares of each row, in the rows' own dtype."""
    result: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return result
