"""Lower bounds of all squared distances between many rows and a few queries, by one matrix product in low precision.

Two forms, with the same meaning and rigorous error margins: float32 by NumPy, and bfloat16 by oneDNN, faster on
processors that multiply bfloat16 (AVX512-BF16 or AMX) and never used on others. Bounds come rows first,
(rows, queries), with the rows padded to whole runs of RUN, beside the smallest of every run.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from pipeline_lib.short_forms import FLOAT32_UNIT

RUN = 8
CHUNK_BYTES = 1 << 20  # of a piece of the product that is looked through while it is in cache
BFLOAT16_UNIT = 2.0**-8
FAR = 1e37  # the bound of a row that only pads
TINY = 1e-36  # over all that underflows


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
        self.columns = np.zeros((padded_rows(rows), size + 1), np.float32)
        self.columns[rows:, -1] = FAR

    def put(self, start: int, forms: np.ndarray, squares: np.ndarray) -> None:
        """Set rows from number `start` on: float64 (rows, size) and their squared norms."""
        part = self.columns[start : start + len(forms)]
        part[:, :-1] = -2.0 * forms
        part[:, -1] = squares * (1.0 - 2.0 * self.unit)

    def finish(self) -> None:
        """All rows were put."""

    def bounds(self, forms: np.ndarray, squares: np.ndarray, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (rows, queries) in `buffer`, and the smallest of each run (runs, queries)."""
        left = np.ones((len(forms), self.columns.shape[1]), np.float32)
        left[:, :-1] = forms
        product, smallest, step = _outputs(self.columns.shape[0], len(forms), buffer)
        for start in range(0, len(product), step):
            piece = product[start : start + step]
            np.matmul(self.columns[start : start + step], left.T, out=piece)
            _least_of_runs(piece, smallest[start // RUN : (start + step) // RUN])
        return product, smallest

    def limit(self, squared_reach: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """What the bounds of all rows within `squared_reach` (queries,) of their query do not exceed."""
        limit = squared_reach - squares * (1.0 - self.unit) + TINY
        result: np.ndarray = np.nextafter(np.minimum(limit, 3e38).astype(np.float32), np.float32(np.inf))
        return result


class BFloat16Bounds:
    """The same by a product of bfloat16 factors, summed in float32 and rounded to bfloat16.

    With r(x) = |x - rounded x|, the product of rounded factors is off by at most r(q)|b| + |q|r(b) + r(q)r(b). For
    r(b) <= s|b| over all rows, and r(q) <= s|q| + t of a query, twice that is at most (2s + s^2)(|q|^2 + |b|^2)
    + 2t(1 + s)B, with B the largest |b|. Both squares are lessened by their share, split into two bfloat16 values and
    put into the product, so that a bound is a squared distance, and positive but for the margins. Positive bfloat16
    values are in the order of their bits, negative ones lie below as integers too: bounds are compared as int16.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, rows: int, size: int, shortening: float) -> None:
        self.rows = rows
        self.fixed = 2 * (size + 24) * FLOAT32_UNIT + shortening + 2.0**-15  # the last: squares as two values
        self.columns = torch.zeros((padded_rows(rows), size + 4), dtype=torch.bfloat16)
        self.columns[:, size + 2 :] = 1.0
        self.columns[rows:, size] = FAR
        self.squares = np.zeros(rows)
        self.residuals = np.zeros(rows)

    def put(self, start: int, forms: np.ndarray, squares: np.ndarray) -> None:
        """Set rows from number `start` on: float64 (rows, size) and their squared norms."""
        part = slice(start, start + len(forms))
        rounded, self.residuals[part] = _round(forms)
        self.columns[part, : forms.shape[1]] = -2.0 * rounded
        self.squares[part] = squares

    def finish(self) -> None:
        """Set the share of all rows, now that the largest residual is known."""
        norms = np.sqrt(self.squares)
        self.largest = float(norms.max())
        self.share = float((self.residuals / np.maximum(norms, 1e-30)).max())
        self.margin = 2 * self.share + self.share**2 + self.fixed
        size = self.columns.shape[1] - 4
        self.columns[: self.rows, size : size + 2] = _two_values(self.squares * (1.0 - self.margin))
        del self.residuals

    def bounds(self, forms: np.ndarray, squares: np.ndarray, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (rows, queries) in `buffer`, as the bits of bfloat16, and the smallest of each run (runs, queries)."""
        size = forms.shape[1]
        rounded, residuals = _round(forms)
        beyond = np.maximum(residuals - self.share * np.sqrt(squares), 0.0)
        left = torch.ones((len(forms), size + 4), dtype=torch.bfloat16)
        left[:, :size] = rounded
        lessened = squares * (1.0 - self.margin) - 2.0 * beyond * (1.0 + self.share) * self.largest
        left[:, size + 2 :] = _two_values(lessened)
        right = left.T.contiguous()
        product, smallest, step = _outputs(len(self.columns), len(forms), buffer)
        values = torch.from_numpy(product).view(torch.bfloat16)
        for start in range(0, len(product), step):
            torch.mm(self.columns[start : start + step], right, out=values[start : start + step])
            _least_of_runs(product[start : start + step], smallest[start // RUN : (start + step) // RUN])
        return product, smallest

    def limit(self, squared_reach: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """What the bounds of all rows within `squared_reach` (queries,) of their query do not exceed."""
        limit = np.minimum(squared_reach * (1.0 + BFLOAT16_UNIT) * (1.0 + 2.0**-20) + TINY, FAR)
        bits = limit.astype(np.float32).view(np.int32)
        result: np.ndarray = ((bits + 0xFFFF) >> 16).astype(np.int16)
        return result


Bounds = Float32Bounds | BFloat16Bounds


@functools.cache
def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16, and torch's product of it is rounded as BFloat16Bounds expects."""
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(check() for check in checks if check is not None) and bfloat16_product_is_accurate()


def bfloat16_product_is_accurate() -> bool:
    """Whether torch sums products of bfloat16 in float32 and rounds once, on an example; also without fast ones."""
    rng = np.random.default_rng(0)
    left, right = (torch.from_numpy(rng.normal(size=shape)).bfloat16() for shape in ((64, 200), (200, 32)))
    exact = left.double() @ right.double()
    sums = left.abs().double() @ right.abs().double()
    error = (torch.mm(left, right).double() - exact).abs()
    return bool((error <= BFLOAT16_UNIT * exact.abs() + 224 * FLOAT32_UNIT * sums).all())


def _outputs(rows: int, queries: int, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Views for the product and for the smallest of each run, and how many rows make a piece."""
    product = buffer[: rows * queries].reshape(rows, queries)
    smallest = np.empty((rows // RUN, queries), buffer.dtype)
    return product, smallest, RUN * max(1, CHUNK_BYTES // (buffer.itemsize * RUN * queries))


def _least_of_runs(piece: np.ndarray, smallest: np.ndarray) -> None:
    piece.reshape(-1, RUN, piece.shape[1]).min(axis=1, out=smallest)


def _round(forms: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """bfloat16 (rows, size), and how far each row is from what it was, float64 (rows,)."""
    rounded = torch.from_numpy(forms.astype(np.float32)).bfloat16()
    difference = rounded.float().numpy() - forms
    return rounded, np.sqrt(np.einsum("ij,ij->i", difference, difference))


def _two_values(values: np.ndarray) -> torch.Tensor:
    """bfloat16 (rows, 2): a value and what it leaves, whose sum is off by at most 2^-16 of it."""
    whole = torch.from_numpy(values)
    first = whole.float().bfloat16()
    return torch.stack([first, (whole - first.double()).float().bfloat16()], dim=1)
