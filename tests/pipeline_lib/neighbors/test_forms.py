"""Forms that are made in float32 lie no further from the true ones than they say."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.neighbors.forms import MIDDLE_SIZE, Forms


def wide_rows(rows: int, *, rest: float, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    """Rows of 600 values that lie in 40 directions but for a `rest`, away from 0 by `offset`."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(40, 600))
    made = rng.normal(size=(rows, 40)) @ directions + rest * rng.normal(size=(rows, 600)) + offset
    return made.astype(np.float32)


@pytest.mark.parametrize("rest", [0.0, 1e-3, 3.0])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e10])
def test_forms_of_queries_are_within_their_error(rest: float, offset: float, scale: float) -> None:
    forms = Forms(wide_rows(700, rest=rest, offset=offset) * np.float32(scale), longer=False)
    assert forms.in_float32
    queries = wide_rows(200, rest=rest, offset=offset, seed=1) * np.float32(scale)
    queries[0], queries[1] = forms.center, 1e6 * queries[1]
    found = forms.of_queries(queries)
    short, middle, squares = forms.of_rows(queries)
    assert (np.linalg.norm(found.short - short, axis=1) <= found.error).all()
    assert found.middle is not None
    assert middle is not None
    rounding = 1e-7 * np.sqrt(squares)  # of the two middle forms, to float32
    assert (np.linalg.norm(found.middle.astype(float) - middle, axis=1) <= found.middle_error + rounding).all()
    np.testing.assert_allclose(found.squares, (found.short**2).sum(axis=1), rtol=1e-12)
    if rest:
        assert (found.error[2:] < 0.02 * np.sqrt(squares[2:])).all()  # small enough to be of use
    assert found.middle.shape == (200, MIDDLE_SIZE + 1)


@pytest.mark.parametrize(("dim", "rows", "scale"), [(60, 700, 1.0), (600, 500, 1.0), (600, 700, 1e30)])
def test_other_forms_are_made_in_float64(dim: int, rows: int, scale: float) -> None:
    bank = wide_rows(rows, rest=1e-3)[:, :dim] * np.float32(scale)
    forms = Forms(bank, longer=False)
    assert not forms.in_float32
    found = forms.of_queries(bank[:50])
    assert not found.error.any()
    np.testing.assert_array_equal(found.short, forms.of_rows(bank[:50])[0])
