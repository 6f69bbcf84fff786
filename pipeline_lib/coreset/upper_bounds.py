"""Upper bounds of squared distances between rows and centers, by matrix products in bfloat16.

A row that is shown to lie near a center need not be compared more exactly until the picks come down to its bound, and
most rows of a selection never are. Used on processors that multiply bfloat16 (AVX512-BF16 or AMX), not on others.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline_lib.neighbors.bfloat16_products import BFLOAT16_UNIT, BFloat16Factors
from pipeline_lib.neighbors.block_threads import Mapper

ROWS_PER_PRODUCT = 2048
CENTERS_PER_PRODUCT = 512
RUN = (
    256  # rows come in whole runs: torch prepares a product once for every shape, which takes longer than to compute it
)


class UpperBounds:
    """Of the squared distance of every row to the nearest of the first `stamps` centers: `values`, float64 (rows,)."""

    def __init__(self, rows: BFloat16Factors, values: np.ndarray, capacity: int) -> None:
        """`values` are those to the first center, and are copied; `capacity` is how many centers there will be."""
        self.rows = rows
        self.values = values.copy()
        self.stamps = np.ones(len(values), np.int32)
        self.centers = BFloat16Factors(capacity + CENTERS_PER_PRODUCT, rows.size, side=1, negated=True)
        self.count = 0

    def add(self, scaled: np.ndarray, squares: np.ndarray) -> None:
        """Append centers, as `BFloat16Factors.put` takes them."""
        self.centers.put(slice(self.count, self.count + len(scaled)), scaled, squares)
        self.count += len(scaled)

    def store(self, rows: np.ndarray, values: np.ndarray, stamp: int | np.ndarray) -> None:
        """What is known of rows from elsewhere."""
        self.values[rows], self.stamps[rows] = values, stamp

    def above(self, threshold: float, map_blocks: Mapper) -> np.ndarray:
        """Rows whose bound, of all centers, exceeds `threshold`."""
        rows = np.flatnonzero(self.values > threshold)
        rows = rows[np.argsort(self.stamps[rows], kind="stable")]
        blocks = [rows[start : start + ROWS_PER_PRODUCT] for start in range(0, len(rows), ROWS_PER_PRODUCT)]
        left = map_blocks(lambda block: self._above_in_block(block, threshold), blocks)
        return np.concatenate(left) if left else rows

    def _above_in_block(self, rows: np.ndarray, threshold: float) -> np.ndarray:
        values, start = self.values[rows], int(self.stamps[rows[0]])  # rows come with their stamps ascending
        forms = self.rows.values[_in_whole_runs(rows)]
        while start < self.count:
            stop = min(self.count, start + CENTERS_PER_PRODUCT)
            smallest = _smallest_of_product(forms, self.centers.values[start : start + CENTERS_PER_PRODUCT])
            np.minimum(values, smallest[: len(rows)], out=values)
            alive = np.flatnonzero(values > threshold)
            if stop < self.count and len(alive) < 0.75 * len(rows):
                self.store(rows, values, stop)
                rows, values = rows[alive], values[alive]
                if not len(rows):
                    return rows
                forms = forms[_in_whole_runs(alive)]
            start = stop
        self.store(rows, values, self.count)
        result: np.ndarray = rows[values > threshold]
        return result


def _in_whole_runs(numbers: np.ndarray) -> torch.Tensor:
    """The numbers, and the last one again until they are whole runs."""
    return torch.from_numpy(np.pad(numbers, (0, -len(numbers) % RUN), mode="edge"))


def _smallest_of_product(rows: torch.Tensor, centers: torch.Tensor) -> np.ndarray:
    """float64 (rows,): no less than the squared distance of each row to the nearest of the centers.

    Of bfloat16 values, positive ones are in the order of their bits; negative ones are below as integers too.
    """
    bits = torch.mm(rows, centers.T).view(torch.int16).amin(dim=1).numpy().astype(np.int32)
    result: np.ndarray = (np.maximum(bits, 0) << 16).view(np.float32).astype(np.float64)
    result *= 1.0 + BFLOAT16_UNIT  # the product was rounded
    return result
