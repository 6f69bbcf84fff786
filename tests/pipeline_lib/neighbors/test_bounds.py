"""Bounds never exclude a row that is within reach, in either precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.neighbors import exact
from pipeline_lib.neighbors.bfloat16_products import bfloat16_product_is_accurate
from pipeline_lib.neighbors.bounds import RUN, BFloat16Bounds, Bounds, Float32Bounds, padded_rows
from pipeline_lib.neighbors.exact import ExactSearch

needs_accurate_products = pytest.mark.skipif(
    not bfloat16_product_is_accurate(), reason="torch rounds products of bfloat16 otherwise here, and they are not used"
)
KINDS = [Float32Bounds, pytest.param(BFloat16Bounds, marks=needs_accurate_products)]


def squares(rows: np.ndarray) -> np.ndarray:
    return (rows**2).sum(axis=1)


def with_nine_bits(values: np.ndarray) -> np.ndarray:
    """About the same values with nine significant bits, all of which bfloat16 rounds by half a last place."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp((2 * np.trunc(mantissa * 256) + np.sign(mantissa)) / 512, exponent)


def bounds_of(kind: type[Bounds], rows: np.ndarray, queries: np.ndarray) -> tuple[Bounds, np.ndarray, np.ndarray]:
    made = kind(len(rows), rows.shape[1], 0.0)
    half = len(rows) // 2
    made.put(slice(half), rows[:half], squares(rows[:half]))
    made.put(slice(half, len(rows)), rows[half:], squares(rows[half:]))
    buffer = np.empty(padded_rows(len(rows)) * len(queries), made.dtype)
    return made, *made.bounds(queries, squares(queries), buffer)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 70),
    queries=st.integers(1, 20),
    size=st.integers(1, 90),
    spread=st.sampled_from([0.0, 1e-6, 1e-2, 1.0]),
    reach=st.sampled_from([1e-30, 1e-8, 1.0, 1e6]),
    nine_bits=st.booleans(),
)
def test_no_row_within_reach_is_excluded(
    kind: type[Bounds], seed: int, rows: int, queries: int, size: int, spread: float, reach: float, nine_bits: bool
) -> None:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=size)
    bank = middle + spread * rng.normal(size=(rows, size)) * rng.exponential(size=(rows, 1))
    bank /= 2 * np.sqrt(squares(bank).max())  # as ExactSearch scales them
    asked = np.concatenate([bank[: queries // 2], reach * rng.normal(size=(queries - queries // 2, size))])
    if nine_bits:
        bank, asked = with_nine_bits(bank), with_nine_bits(asked)
    true = ((asked[None] - bank[:, None]) ** 2).sum(axis=2)
    made, values, smallest = bounds_of(kind, bank, asked)
    assert (smallest == values.reshape(-1, RUN, len(asked)).min(axis=1)).all()
    for row in range(rows):  # with each distance as the reach, the row itself must be let through
        assert (values[row] <= made.limit(true[row], squares(asked))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_most_rows_beyond_reach_are_excluded_and_padding_always_is(kind: type[Bounds]) -> None:
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(1001, 40)) / 20
    asked = rng.normal(size=(64, 40)) / 20
    true = ((asked[None] - bank[:, None]) ** 2).sum(axis=2)
    made, values, _ = bounds_of(kind, bank, asked)
    inside = values <= made.limit(true.min(axis=0), squares(asked))
    assert not inside[1001:].any()
    assert 64 <= inside.sum() < 64 * 5


@needs_accurate_products
def test_bfloat16_bounds_are_within_a_few_per_cent() -> None:
    rng = np.random.default_rng(1)
    bank, asked = rng.normal(size=(256, 60)) / 20, rng.normal(size=(32, 60)) / 20
    true = ((asked[None] - bank[:, None]) ** 2).sum(axis=2)
    _, values, _ = bounds_of(BFloat16Bounds, bank, asked)
    decoded = (values.astype(np.int32) << 16).view(np.float32)
    assert (decoded <= true * 1.005).all()
    assert (decoded >= true * 0.9).all()


@needs_accurate_products
@pytest.mark.parametrize(("rows", "dim"), [(3000, 96), (1200, 600), (500, 20)])
def test_search_answers_alike_in_both_precisions(rows: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(12, dim))
    bank, asked = (
        (rng.normal(size=(n, 12)) @ mixing + 0.3 * rng.normal(size=(n, dim))).astype(np.float32) for n in (rows, 150)
    )
    answers = []
    for fast in (False, True):
        monkeypatch.setattr(exact, "has_fast_bfloat16", lambda fast=fast: fast)
        search = ExactSearch(bank, threads=2)
        assert isinstance(search.bounds, BFloat16Bounds) is fast
        answers += [search.search(asked, neighbors) for neighbors in (1, 6)]
    for one, other in zip(answers[:2], answers[2:], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
