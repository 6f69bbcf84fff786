"""Bounds by products of bfloat16 hold for values that round hardest and for the worst product that is allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline_lib.neighbors import bfloat16_products
from pipeline_lib.neighbors.bfloat16_products import (
    BFLOAT16_UNIT,
    SMALLEST_NORMAL,
    BFloat16Factors,
    bfloat16_product_is_accurate,
    has_fast_bfloat16,
)

TIES = (1 + 1 / 256, 1 + 3 / 256, 1 + 5 / 256, 2 - 1 / 256)  # nine significant bits: each half a last place off
HARD = (*TIES, 1 + 1 / 256 + 2.0**-30, 1 + 3 / 256 - 2.0**-30, 1.0)  # beside ties, ties once in float32, and none


def test_the_unit_is_the_largest_relative_error_of_rounding() -> None:
    values = torch.arange(2**14, 2**15, dtype=torch.float64) / 2**14
    error = ((values.bfloat16().double() - values).abs() / values).max()
    assert 0.99 * BFLOAT16_UNIT < float(error) < BFLOAT16_UNIT


def hard_rows(seed: int, rows: int, size: int, values: tuple[float, ...], lowest: int) -> np.ndarray:
    """float64 (rows, size) of these values times powers of two from `lowest` on, half of the rows of both signs."""
    rng = np.random.default_rng(seed)
    magnitude = rng.choice(values, size=(rows, size)) * 2.0 ** rng.integers(lowest, 1, size=(rows, size))
    magnitude[::2] *= rng.choice([-1.0, 1.0], size=magnitude[::2].shape)
    return magnitude


def worst_product(left: torch.Tensor, right: torch.Tensor, *, flushed: bool) -> np.ndarray:
    """float64 (rows, others), not rounded yet: as large as float32 sums of bfloat16 can be."""
    rows, others = (factor.double().numpy() for factor in (left, right))
    if flushed:
        rows, others = (np.where(np.abs(factor) < SMALLEST_NORMAL, 0.0, factor) for factor in (rows, others))
    terms = rows[:, None, :] * others[None]
    columns = terms.shape[2]
    lost = (columns - 1) * 2.0**-24 * np.abs(terms).sum(axis=2) + 2 * columns * SMALLEST_NORMAL * flushed
    return np.asarray(terms.astype(np.longdouble).sum(axis=2) + lost, np.float64)


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 40),
    values=st.sampled_from([HARD, HARD[:1], HARD[1:2]]),
    lowest=st.sampled_from([0, -3, -30, -80]),
    scales=st.tuples(*[st.sampled_from([0, -10, -60, -66, -100, -140])] * 2),
    flushed=st.booleans(),
)
@example(seed=0, size=4000, values=HARD[:1], lowest=0, scales=(0, 0), flushed=False)
@example(seed=0, size=4000, values=HARD[1:2], lowest=0, scales=(0, 0), flushed=False)
@example(seed=0, size=40, values=HARD, lowest=0, scales=(-63, -63), flushed=True)
def test_no_allowed_product_is_more_than_the_distance(
    seed: int,
    size: int,
    values: tuple[float, ...],
    lowest: int,
    scales: tuple[int, int],
    flushed: bool,
) -> None:
    rows = hard_rows(seed, 12, size, values, lowest) * 2.0 ** scales[0]
    others = hard_rows(seed + 1, 12, size, values, lowest) * 2.0 ** scales[1]
    others = np.concatenate([others, rows[:6], rows[6:] * (1 + 1e-9), -rows[:2]])
    left = BFloat16Factors(len(rows), size)
    right = BFloat16Factors(len(others) + 1, size, negated=True)
    left.put(slice(None), rows, (rows**2).sum(axis=1))
    right.put(slice(len(others)), others, (others**2).sum(axis=1))
    true = ((rows[:, None].astype(np.longdouble) - others[None]) ** 2).sum(axis=2)
    product = worst_product(left.values, right.values, flushed=flushed)
    assert (product[:, -1] > 9e36).all()  # not put: far from everything
    assert (product[:, :-1] <= true).all()


def test_a_product_that_is_rounded_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.mm
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(bfloat16_products, "bfloat16_product_is_accurate", lambda: True)
    assert has_fast_bfloat16.__wrapped__()
    monkeypatch.setenv("FEDPATCH_BFLOAT16", "0")
    assert not has_fast_bfloat16.__wrapped__()
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch, "mm", lambda left, right: real(left, right) * 1.03)
    assert not has_fast_bfloat16.__wrapped__()


def test_a_product_whose_sums_are_in_bfloat16_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.mm
    half = 800
    monkeypatch.setattr(torch, "mm", lambda a, b: real(a[:, :half], b[:half]) + real(a[:, half:], b[half:]))
    assert not bfloat16_product_is_accurate()
