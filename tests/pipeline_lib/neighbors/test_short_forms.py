"""Short forms never lengthen a distance, and keep most of it where the data is flat."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.neighbors.short_forms import choose_basis, principal_basis, shorten, shortening_error


def flat_rows(rows: int, dim: int, rank: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(rank, dim))
    return generator.normal(size=(rows, rank)) @ mixing + 0.1 * generator.normal(size=(rows, dim))


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e9])
def test_distances_of_short_forms_are_lower_bounds(scale: float) -> None:
    rows, others = flat_rows(80, 96, 10) * scale, np.random.default_rng(5).normal(size=(60, 96)) * scale
    basis = choose_basis(flat_rows(500, 96, 10))
    assert basis is not None
    short = [shorten(x, (x**2).sum(axis=1), basis) for x in (rows, others)]
    lower = ((short[0][:, None] - short[1]) ** 2).sum(axis=2)
    true = ((rows[:, None] - others) ** 2).sum(axis=2)
    slack = shortening_error(96, basis.shape[1]) * ((rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1))
    assert (lower <= true + slack).all()
    np.testing.assert_allclose((short[1] ** 2).sum(axis=1), (others**2).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("sample", [np.zeros((200, 40)), np.ones((3, 40)), flat_rows(200, 40, 2)])
def test_basis_is_orthonormal_whatever_the_data(sample: np.ndarray) -> None:
    size = min(16, len(sample))
    basis, variances = principal_basis(sample, size)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size), atol=1e-12)
    assert (variances >= 0).all()


def test_fewest_directions_that_hold_the_variance() -> None:
    assert choose_basis(flat_rows(600, 100, 8)).shape == (100, 16)  # type: ignore[union-attr]
    assert choose_basis(flat_rows(600, 100, 28)).shape == (100, 32)  # type: ignore[union-attr]


def test_no_short_form_where_it_would_not_pay() -> None:
    assert choose_basis(np.random.default_rng(0).normal(size=(900, 60))) is None  # no direction stands out
    assert choose_basis(flat_rows(600, 24, 2)) is None  # short already
    assert choose_basis(np.zeros((600, 100))) is None
    assert choose_basis(flat_rows(5, 100, 2)) is None  # too few rows to learn from
