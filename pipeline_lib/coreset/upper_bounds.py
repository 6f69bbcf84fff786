"""Upper bounds of squared distances between rows and centers: the nearest center is guessed, and measured.

A row that is shown to lie near a center need not be compared with the others until the picks come down to its bound,
and most rows of a selection never are. The distance to any center is such a bound, so that the guess needs no rigour:
it is the center with the smallest product of short forms, and one difference in float32 makes a bound of it.
"""

from __future__ import annotations

import numpy as np

from pipeline_lib.coreset.center_distances import CenterDistances
from pipeline_lib.neighbors.block_threads import Mapper
from pipeline_lib.when_needed import torch

ROWS_PER_PRODUCT = 512
CENTERS_PER_PRODUCT = 1024


class UpperBounds:
    """Of the squared distance of every row to the nearest of the first `stamps` centers: `values`, float64 (rows,)."""

    def __init__(self, centers: CenterDistances, values: np.ndarray) -> None:
        """`values` are those to the first center."""
        self.centers = centers
        self.points = centers.points
        self.values = values
        self.stamps = np.ones(len(values), np.int32)

    def store(self, rows: np.ndarray, values: np.ndarray, stamp: int | np.ndarray) -> None:
        """What is known of rows from elsewhere."""
        self.values[rows], self.stamps[rows] = values, stamp

    def above(self, threshold: float, map_blocks: Mapper) -> np.ndarray:
        """Rows whose bound, with a guess among the centers that they have not seen, exceeds `threshold`."""
        rows = np.flatnonzero(self.values > threshold)
        rows = rows[np.argsort(self.stamps[rows], kind="stable")]
        blocks = [rows[start : start + ROWS_PER_PRODUCT] for start in range(0, len(rows), ROWS_PER_PRODUCT)]
        left = map_blocks(lambda block: self._above_in_block(block, threshold), blocks)
        return np.concatenate(left) if left else rows

    def _above_in_block(self, rows: np.ndarray, threshold: float) -> np.ndarray:
        values, start = self.values[rows], int(self.stamps[rows[0]])  # rows come with their stamps ascending
        forms, others = torch.from_numpy(self.points.forms(rows)), torch.from_numpy(self.centers.forms)
        lowest = np.full(len(rows), np.inf, np.float32)
        while start < self.centers.count:
            stop = min(self.centers.count, start + CENTERS_PER_PRODUCT)
            product = torch.mm(forms, others[start:stop].T).numpy()
            guess = product.argmin(axis=1)
            products = product[np.arange(len(rows)), guess]
            nearer = np.flatnonzero(products < lowest)
            lowest[nearer] = products[nearer]
            measured = self.points.upper_squares(rows[nearer], self.centers.raw[start + guess[nearer]])
            values[nearer] = np.minimum(values[nearer], measured)
            alive = np.flatnonzero(values > threshold)
            if stop < self.centers.count and len(alive) < 0.75 * len(rows):
                self.store(rows, values, stop)
                rows, values, lowest = rows[alive], values[alive], lowest[alive]
                if not len(rows):
                    return rows
                forms = forms[torch.from_numpy(alive)]
            start = stop
        self.store(rows, values, self.centers.count)
        result: np.ndarray = rows[values > threshold]
        return result
