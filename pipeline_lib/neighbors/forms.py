"""Short and middle forms of rows and of queries, in directions that are learned from the rows (see short_forms)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline_lib.neighbors.short_forms import (
    ENOUGH,
    EXPLAINED,
    FLOAT32_UNIT,
    SIZES,
    choose_basis,
    principal_basis,
    shorten,
    squared_norms,
    with_rest,
)

SAMPLED_ROWS = 2048
WIDE = 512  # dimensions from which a middle form pays
MIDDLE_SIZE = 320
LONG_SIZES = (32, 48, 64, 96, 128, 192, 256)
LONG_EXPLAINED = 0.95
FORM_ROWS = 128  # whose forms are made at a time, while they are in cache
DEPTH = 256  # values that are added up in float32: fewer, and the sum is nearer to the true one
FLOAT32_SUM = (DEPTH + 16) * FLOAT32_UNIT
MODERATE = 1e15  # raw values below it have float32 squares


@dataclass(frozen=True)
class QueryForms:
    """Forms of queries, which may lie as far from the true ones as their errors say, each (query,) float64."""

    short: np.ndarray  # float64 (query, size)
    squares: np.ndarray  # squared norms of the short forms
    error: np.ndarray
    middle: np.ndarray | None  # float32 (query, MIDDLE_SIZE + 1)
    middle_error: np.ndarray


class Forms:
    """Center, scale and principal directions of rows, float32 (rows, dim), finite, at least one.

    Scaled rows have norms of at most 1. Short forms are whole rows where few directions do not hold most of the
    variance (`basis` is None); middle ones are there for WIDE rows. `longer`: a product is cheap enough for longer
    short forms, which leave fewer candidates.
    """

    def __init__(self, rows: np.ndarray, *, longer: bool) -> None:
        sample = rows[:: max(1, len(rows) // SAMPLED_ROWS)].astype(np.float64)
        self.dim = rows.shape[1]
        self.center: np.ndarray = sample.mean(axis=0).astype(np.float32)
        sample -= self.center
        largest = float(np.sqrt(max(squared_norms(self._centered(part)).max() for part in in_cache(rows))))
        self.scale = 2.0 ** -float(np.frexp(largest)[1]) if largest > 0 else 1.0
        self.moderate = largest + float(np.abs(self.center).max()) < MODERATE
        self.basis, self.middle_basis = _bases(sample * self.scale, longer=longer)
        self.size = self.dim if self.basis is None else self.basis.shape[1] + 1
        self.in_float32 = self.middle_basis is not None and 1 / MODERATE < self.scale < MODERATE
        if self.middle_basis is not None:
            self._middle32 = self.middle_basis.astype(np.float32)
            absolute = np.abs(self.middle_basis)
            self._relative = {
                size: FLOAT32_SUM * float(np.sqrt(part.sum(axis=0).max() * part.sum(axis=1).max()))
                for size in (self.size, MIDDLE_SIZE + 1)
                for part in (absolute[:, : size - 1],)
            }

    def of_rows(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Short forms float64 (row, size), middle forms float32 or None, squared norms; rows centered and scaled."""
        parts = [self._of_rows_in_cache(part) for part in in_cache(raw)] or [self._of_rows_in_cache(raw)]
        short, middle, squares = zip(*parts, strict=True)
        joined = None if self.middle_basis is None else np.concatenate(middle)
        return np.concatenate(short), joined, np.concatenate(squares)

    def of_queries(self, raw: np.ndarray) -> QueryForms:
        """The same of float32 queries; of wide ones by products in float32. Not finite for some that are far away."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not self.in_float32:
                short, middle, squares = self.of_rows(raw)
                return QueryForms(short, squares, np.zeros(len(raw)), middle, np.zeros(len(raw)))
            parts = [self._of_queries_in_cache(part) for part in in_cache(raw)]
            short, middle = (np.concatenate(part) for part in zip(*parts, strict=True))
            squares = squared_norms(short)
            errors = [self._error(form, squares) for form in (short, middle)]
            return QueryForms(short, squares, errors[0], middle, errors[1])

    def _centered(self, raw: np.ndarray) -> np.ndarray:
        result: np.ndarray = raw.astype(np.float64)
        result -= self.center
        return result

    def _of_rows_in_cache(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        centered = self._centered(raw)
        centered *= self.scale
        squares = squared_norms(centered)
        if self.basis is None:
            return centered, None, squares
        if self.middle_basis is None:
            return shorten(centered, squares, self.basis), None, squares
        middle = shorten(centered, squares, self.middle_basis)
        short = with_rest(middle[:, : self.size - 1], squares)
        with np.errstate(over="ignore"):  # of a query that is too far away for forms
            return short, middle.astype(np.float32), squares

    def _of_queries_in_cache(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Short forms in float64 and middle ones in float32, from sums of at most DEPTH products in float32."""
        rows = raw - self.center
        rows *= np.float32(self.scale)
        coordinates, squares = np.zeros((len(rows), MIDDLE_SIZE)), np.zeros(len(rows))
        for start in range(0, self.dim, DEPTH):
            part = slice(start, start + DEPTH)
            coordinates += rows[:, part] @ self._middle32[part]
            squares += squared_norms(rows[:, part])
        short = with_rest(coordinates[:, : self.size - 1], squares)
        return short, with_rest(coordinates, squares).astype(np.float32)

    def _error(self, forms: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """How far forms (query, size) of queries with these squared norms may lie from the true ones: float64 (query,).

        With u = 2^-24, centered values and those of the basis Q are off by u of themselves, sums of DEPTH products by
        DEPTH u of the sum of their absolute values (Higham 2002, section 3.1). So the coordinates are off by
        unit |Q|'|x|, a vector no longer than unit sqrt(|Q|_1 |Q|_inf) |x| (Golub & Van Loan 2013, section 2.3.3), and
        their square, hence that of the rest, by `off`. Numbers whose squares differ by that differ by its root at most,
        and by `off` through one of them.
        """
        relative, unit = self._relative[forms.shape[1]], FLOAT32_SUM
        off = (2.0 * relative + relative**2 + unit) * squares + 1e-30
        rest = np.minimum(np.sqrt(off), off / np.maximum(forms[:, -1].astype(np.float64), 1e-30))
        result: np.ndarray = np.sqrt(relative**2 * squares + rest**2) + 1e-30
        return result


def _bases(sample: np.ndarray, *, longer: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Directions of the short forms and of the middle ones, of which the former are the first."""
    dim = sample.shape[1]
    sizes, explained = (LONG_SIZES, LONG_EXPLAINED) if longer else (SIZES, EXPLAINED)
    enough = LONG_EXPLAINED if longer and dim <= LONG_SIZES[-1] else ENOUGH
    known = principal_basis(sample, MIDDLE_SIZE) if dim >= WIDE and len(sample) >= 2 * MIDDLE_SIZE else None
    basis = choose_basis(sample, possible_sizes=sizes, explained=explained, enough=enough, known=known)
    return basis, None if basis is None or known is None else known[0]


def in_cache(rows: np.ndarray) -> Iterator[np.ndarray]:
    """A few rows at a time."""
    return (rows[start : start + FORM_ROWS] for start in range(0, len(rows), FORM_ROWS))
