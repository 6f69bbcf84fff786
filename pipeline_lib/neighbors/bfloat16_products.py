"""Matrix products of bfloat16 whose entries bound squared distances from below, by a rigorous margin.

Fast on processors that multiply tiles of bfloat16 (AMX), by oneDNN, and not used on others: with AVX512-BF16 alone
float32 is faster in three of four rows of docs/performance.md.
"""

from __future__ import annotations

import functools
import os

import numpy as np

from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT
from pipeline_lib.when_needed import torch

BFLOAT16_UNIT = 2.0**-8  # largest relative rounding error: eight significant bits
SMALLEST_NORMAL = 2.0**-126  # of float32 and bfloat16; what is smaller may count as 0
FAR = 1e37  # squared norm of a row that is not there


class BFloat16Factors:
    """Rows (x, squares, 1, 1) or, `negated`, (-2y, 1, 1, squares): products of the two are lower bounds of |x - y|^2.

    Let u = 2^-8 and v = 2^-24 be the units of bfloat16 and float32, K the columns, and S = |x|^2 + |y|^2. The sum
    S - 2x.y is off by what follows. Both squares are lowered by a share `margin` of themselves and by `underflow`, so
    that the sum is certainly no more than the distance.

    - Rounded to the nearest, a value is off by at most u/(1 + u) of itself: it is half a last place off only if it is
      that far above a power of two. Through float32 it is off by at most u, since v is less than u - u/(1 + u). So
      |x' - x| <= u|x| for a whole row, and twice the product is off by at most 2(2u + u^2)|x||y| (Cauchy and Schwarz),
      which is at most (2u + u^2) S. The factor -2 is exact.
    - Products of two bfloat16 values are exact in float32. A float32 sum of K of them, in whatever order, is off by at
      most (K - 1)v times their sizes' sum (Jeannerod & Rump 2013, "Improved error bounds for inner products in
      floating-point arithmetic", SIAM J. Matrix Anal. Appl. 34(2)): here at most (1 + u)^2 (2|x||y| + (1 + margin) S),
      which is less than 3S for a margin below 0.9. So 3Kv S.
    - A square is put in as two values, the second of what the first leaves, and is off by at most u^2 = 2^-16 of
      itself. The share 2^-15 holds that of the changed square too, and the error of squares in float64.
    - Where numbers below t = 2^-126 count as 0, products and sums lose at most t each, 2Kt together, and the squares'
      values 4t. Values of x lose at most 2t sqrt(K)|y|, less than 2^-40 |y|^2, in the share, and 2^-200 K; those of y
      likewise. Each of the two squares is lowered by 4Kt, more than all of that.

    What is put in may be off itself: `error` is by how much a squared distance of it may be, in units of S.
    The product is rounded to bfloat16 when it is done, which is its reader's matter: rounding to the nearest keeps the
    order, and a positive product is at most 1 + u of what it was rounded to (Higham 2002, theorem 2.3).
    """

    def __init__(self, rows: int, size: int, *, negated: bool = False, error: float = 0.0) -> None:
        """Room for (rows, size); those of a `negated` one are far from everything until they are `put`."""
        self.size = size
        terms = size + 4
        margin = 2 * BFLOAT16_UNIT + BFLOAT16_UNIT**2 + 3 * terms * FLOAT32_UNIT + 2.0**-15 + error
        self.kept, self.moved = 1.0 - margin, -underflow(terms) / 2
        self.values = torch.empty((rows, terms), dtype=torch.bfloat16)
        self.factor = -2.0 if negated else 1.0
        self.own = slice(size + 2 * negated, size + 2 * negated + 2)  # its square, as two values
        self.other = slice(size + 2 * (not negated), size + 2 * (not negated) + 2)
        if negated:
            self.values.zero_()
            self.values[:, self.other] = 1.0
            self.values[:, self.own.start] = FAR

    def taken(self, rows: np.ndarray, count: int) -> BFloat16Factors:
        """Those of some rows of a `negated` one, in their order, with room for `count`."""
        taken = BFloat16Factors(count, self.size, negated=True)
        taken.kept = self.kept
        taken.values[: len(rows)] = self.values[torch.from_numpy(rows)]
        return taken

    def put(self, part: slice | np.ndarray, rows: np.ndarray, squares: np.ndarray) -> None:
        """Set rows: float64 (rows, size), and their squared norms (rows,)."""
        target = torch.empty((len(rows), self.size + 4), dtype=torch.bfloat16)
        target[:, : self.size] = torch.from_numpy(rows).float() * self.factor
        target[:, self.other] = 1.0
        changed = torch.from_numpy(squares * self.kept + self.moved)
        first = changed.float().bfloat16()
        target[:, self.own] = torch.stack([first, (changed - first.double()).float().bfloat16()], dim=1)
        self.values[part if isinstance(part, slice) else torch.from_numpy(part)] = target


def underflow(terms: int) -> float:
    """More than a sum of products in float32 can lose where numbers below 2^-126 count as 0."""
    return 8 * terms * SMALLEST_NORMAL


@functools.cache
def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies tiles of bfloat16, and torch's product is rounded as BFloat16Factors expects.

    FEDPATCH_BFLOAT16=0 in the environment says no, for a comparison.
    """
    if os.environ.get("FEDPATCH_BFLOAT16") == "0":
        return False
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return has_tiles is not None and has_tiles() and bfloat16_product_is_accurate()


def bfloat16_product_is_accurate() -> bool:
    """Whether torch sums products of bfloat16 in float32 and rounds once, on an example; also without fast ones."""
    rng = np.random.default_rng(0)
    left, right = (torch.from_numpy(rng.normal(size=shape)).bfloat16() for shape in ((64, 1600), (32, 1600)))
    exact = left.double() @ right.double().T
    allowed = BFLOAT16_UNIT * exact.abs() + 1600 * FLOAT32_UNIT * (left.abs().double() @ right.abs().double().T)
    laid_out = (right.T, right.T.contiguous())  # as its users have it
    return all(bool(((torch.mm(left, one).double() - exact).abs() <= allowed).all()) for one in laid_out)
