"""Lower bounds of all squared distances between many rows and a few queries, by one matrix product in low precision.

Two forms, with the same meaning and rigorous error margins: float32 by NumPy, and bfloat16 by oneDNN, faster on
processors that multiply tiles of bfloat16 (AMX) and never used on others. Bounds come rows first,
(rows, queries), with the rows padded to whole runs of RUN, beside the smallest of every run.
"""

from __future__ import annotations

import copy

import numpy as np

from pipeline_lib.neighbors.bfloat16_products import FAR, BFloat16Factors, underflow
from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT
from pipeline_lib.when_needed import torch

RUN = 8
CHUNK_BYTES = 1 << 20  # of a piece of the product that is looked through while it is in cache


def padded_rows(rows: int) -> int:
    """Rows in whole runs."""
    return -(-rows // RUN) * RUN


class Float32Bounds:
    """|q|^2 + (q, 1) . (-2b, |b|^2), off by at most unit (|q|^2 + 2|b|^2) (see coreset/center_distances.py), which is
    taken off both squares. The bounds leave out |q|^2, so that they are the product itself.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, rows: int, size: int, shortening: float) -> None:
        """`size` values a row; `shortening` is the error of the short form (see short_forms.shortening_error)."""
        self.unit = (size + 16) * FLOAT32_UNIT + shortening
        self.underflow = underflow(size + 1)
        self.columns = np.zeros((padded_rows(rows), size + 1), np.float32)
        self.columns[rows:, -1] = FAR

    def put(self, rows: slice | np.ndarray, forms: np.ndarray, squares: np.ndarray) -> None:
        """Set these rows: float64 (rows, size) and their squared norms."""
        self.columns[rows, :-1] = -2.0 * forms
        self.columns[rows, -1] = squares * (1.0 - 2.0 * self.unit)

    def taken(self, rows: np.ndarray) -> Float32Bounds:
        """Those of some rows, in their order."""
        taken = copy.copy(self)
        taken.columns = np.zeros((padded_rows(len(rows)), self.columns.shape[1]), np.float32)
        taken.columns[: len(rows)] = self.columns[rows]
        taken.columns[len(rows) :, -1] = FAR
        return taken

    def left(self, forms: np.ndarray) -> np.ndarray:
        """float32 (queries, size + 1): the queries' side of the product."""
        left = np.ones((len(forms), self.columns.shape[1]), np.float32)
        left[:, :-1] = forms
        return left

    def bounds(self, forms: np.ndarray, squares: np.ndarray, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (rows, queries) in `buffer`, and the smallest of each run (runs, queries)."""
        left = self.left(forms)
        product, smallest, step = _outputs(self.columns.shape[0], len(forms), buffer)
        for start in range(0, len(product), step):
            piece = product[start : start + step]
            np.matmul(self.columns[start : start + step], left.T, out=piece)
            _least_of_runs(piece, smallest[start // RUN : (start + step) // RUN])
        return product, smallest

    def limit(self, squared_reach: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """What the bounds of all rows within `squared_reach` (queries,) of their query do not exceed."""
        limit = squared_reach - squares * (1.0 - self.unit) + self.underflow
        result: np.ndarray = np.nextafter(np.minimum(limit, 3e38).astype(np.float32), np.float32(np.inf))
        return result


class BFloat16Bounds:
    """The same by a product of bfloat16 factors, summed in float32 and rounded to bfloat16.

    The margin is taken off both squares (see pipeline_lib.neighbors.bfloat16_products), and these are put into the
    product, so that a bound is a squared distance, and positive but for the margins. Positive bfloat16 values are in
    the order of their bits, negative ones lie below as integers too: bounds are compared as int16.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, rows: int, size: int, shortening: float) -> None:
        self.error = shortening
        self.rows = BFloat16Factors(padded_rows(rows), size, negated=True, error=shortening)

    def put(self, rows: slice | np.ndarray, forms: np.ndarray, squares: np.ndarray) -> None:
        """Set these rows: float64 (rows, size) and their squared norms."""
        self.rows.put(rows, forms, squares)

    def taken(self, rows: np.ndarray) -> BFloat16Bounds:
        """Those of some rows, in their order."""
        taken = copy.copy(self)
        taken.rows = self.rows.taken(rows, padded_rows(len(rows)))
        return taken

    def bounds(self, forms: np.ndarray, squares: np.ndarray, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (rows, queries) in `buffer`, as the bits of bfloat16, and the smallest of each run (runs, queries)."""
        queries = BFloat16Factors(len(forms), forms.shape[1], error=self.error)
        queries.put(slice(None), forms, squares)
        left, right = self.rows.values, queries.values.T.contiguous()
        product, smallest, step = _outputs(len(left), len(forms), buffer)
        values = torch.from_numpy(product).view(torch.bfloat16)
        for start in range(0, len(product), step):
            torch.mm(left[start : start + step], right, out=values[start : start + step])
            _least_of_runs(product[start : start + step], smallest[start // RUN : (start + step) // RUN])
        return product, smallest

    def limit(self, squared_reach: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """What the bounds of all rows within `squared_reach` (queries,) of their query do not exceed.

        Rounding keeps the order: what is at most x is at most x rounded up when it is rounded.
        """
        limit = np.minimum(squared_reach, FAR).astype(np.float32)
        bits = np.nextafter(limit, np.float32(np.inf)).view(np.int32)
        result: np.ndarray = ((bits + 0xFFFF) >> 16).astype(np.int16)
        return result


Bounds = Float32Bounds | BFloat16Bounds


def _outputs(rows: int, queries: int, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Views for the product and for the smallest of each run, and how many rows make a piece."""
    product = buffer[: rows * queries].reshape(rows, queries)
    smallest = np.empty((rows // RUN, queries), buffer.dtype)
    return product, smallest, RUN * max(1, CHUNK_BYTES // (buffer.itemsize * RUN * queries))


def _least_of_runs(piece: np.ndarray, smallest: np.ndarray) -> None:
    piece.reshape(-1, RUN, piece.shape[1]).min(axis=1, out=smallest)
