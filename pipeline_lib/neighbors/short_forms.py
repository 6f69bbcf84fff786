"""A short form of feature rows whose distances never exceed the true ones.

For an orthonormal basis Q, x -> (x Q, |x - Q Q'x|) keeps every norm and never lengthens a distance: the residuals'
distance is at least the difference of their norms. With the leading principal directions little is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FLOAT32_UNIT = 2.0**-24  # largest relative rounding error
POWER_STEPS = 2
SIZES: tuple[int, ...] = (16, 32, 48, 64, 96, 128)
EXPLAINED = 0.9  # share of the variance that the kept directions hold
ENOUGH = 0.75  # where no size holds that much, the largest one still pays if it holds this


def principal_basis(sample: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """About the `size` leading principal directions of centered rows (rows, dim), and the variance along each.

    Block power iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4), started from rows of the sample. The basis
    (dim, size) is orthonormal to float64, however well it has converged.
    """
    start = sample[np.linspace(0, len(sample) - 1, size).astype(int)].T
    basis, _ = np.linalg.qr(start + 1e-3 * np.abs(start).max(initial=1e-300) * np.eye(*start.shape))
    for _ in range(POWER_STEPS):
        basis, _ = np.linalg.qr(sample.T @ (sample @ basis))
    _, values, rotation = np.linalg.svd(sample @ basis, full_matrices=False)
    return basis @ rotation.T, values**2 / len(sample)


def choose_basis(
    sample: np.ndarray,
    *,
    possible_sizes: Sequence[int] = SIZES,
    explained: float = EXPLAINED,
    enough: float = ENOUGH,
    known: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray | None:
    """The fewest directions that hold `explained` of the variance; None where half of all do not suffice.

    `sample` is float64 (rows, dim), centered; `known` its `principal_basis` of at least the largest size.
    """
    dim = sample.shape[1]
    sizes = [size for size in possible_sizes if 2 * size <= dim and 2 * size <= len(sample)]
    total = float(np.einsum("ij,ij->", sample, sample)) / len(sample)
    if not sizes or not total > 0:
        return None
    basis, variances = known or principal_basis(sample, sizes[-1])
    held = np.cumsum(variances) / total
    for size in sizes:
        if held[size - 1] >= explained:
            return np.ascontiguousarray(basis[:, :size])
    return np.ascontiguousarray(basis[:, : sizes[-1]]) if held[sizes[-1] - 1] >= enough else None


def shorten(centered: np.ndarray, squares: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """float64 (rows, size + 1): the coordinates along the basis, and the norm of what is left.

    `squares` are the rows' squared norms, (rows,).
    """
    return with_rest(centered @ basis, squares)


def with_rest(coordinates: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """float64 (rows, size + 1): coordinates (rows, size) of rows, and the norm of what they leave of them."""
    result = np.empty((len(coordinates), coordinates.shape[1] + 1))
    result[:, :-1] = coordinates
    np.sqrt(np.maximum(squares - squared_norms(result[:, :-1]), 0.0), out=result[:, -1])
    return result


def squared_norms(rows: np.ndarray) -> np.ndarray:
    """Sum of squares of each row, in the rows' own dtype."""
    result: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return result


def shortening_error(dim: int, size: int) -> float:
    """How far a squared distance of `shorten`ed rows x, c may be off through its rounding, in units of |x|^2 + |c|^2.

    The held square is off by at most e = (dim + size) 2^-53 of |x|^2, hence the residual's norm by sqrt(e) |x|.
    """
    return 4.0 * float(np.sqrt((dim + size + 8) * 2.0**-53))
