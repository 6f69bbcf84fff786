"""Means of cells: against loops over everything, and what a step of Lloyd's promises."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset import cell_means as module
from pipeline_lib.coreset.cell_means import cell_means, move_rows
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from tests.reference_coreset import slow_cell_means


@st.composite
def cases(draw: st.DrawFn, *, max_steps: int = 3, with_fixed: bool = True) -> dict[str, Any]:
    """Patches, of which some may be equal, rows among them, and fixed centers."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, dim = draw(st.integers(1, 60)), draw(st.integers(1, 7))
    patches = rng.normal(draw(st.sampled_from([0.0, 100.0])), 1.0, (n, dim)).astype(draw(st.sampled_from(["f2", "f4"])))
    if draw(st.booleans()):
        patches = np.round(patches)  # ties, and rows that are equal
    size = draw(st.integers(1, n))
    fixed = rng.normal(patches.mean(), 1.0, (draw(st.integers(0, 4)) if with_fixed else 0, dim)).astype(np.float32)
    chosen = greedy_coreset_selection(patches, size, rng=rng, initial_centers=fixed if len(fixed) else None)
    return {
        "patches": patches, "rows": patches[chosen.indices].astype(np.float32), "fixed": fixed,
        "steps": draw(st.integers(1, max_steps)), "radius": chosen.covering_radius,
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_means_counts_and_cells_are_those_of_loops_over_everything(case: dict[str, Any]) -> None:
    patches, rows, fixed, steps = case["patches"], case["rows"], case["fixed"], case["steps"]
    found = cell_means(patches, rows, fixed=fixed if len(fixed) else None, steps=steps)
    means, counts, cell = slow_cell_means(patches, rows, fixed=fixed, steps=steps)
    assert (found.means.dtype, found.counts.dtype, found.cell.dtype) == (np.float32, np.int64, np.int32)
    assert found.counts.tolist() == counts
    assert found.cell.tolist() == cell
    assert found.means.tobytes() == np.array(means, np.float32).reshape(rows.shape).tobytes()


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_counts_add_up_and_a_mean_is_that_of_its_cell(case: dict[str, Any]) -> None:
    patches, fixed = case["patches"], case["fixed"]
    found = cell_means(patches, case["rows"], fixed=fixed if len(fixed) else None, steps=case["steps"])
    assert found.counts.sum() == (found.cell >= 0).sum() <= len(patches)
    assert len(fixed) or found.counts.sum() == len(patches)
    for row, count in enumerate(found.counts):
        own = patches[found.cell == row].astype(np.float64)
        assert len(own) == count
        assert not count or np.allclose(found.means[row], own.mean(axis=0), rtol=1e-6, atol=1e-7)
    places = np.concatenate([found.means, *([fixed] if len(fixed) else [])]).astype(np.float64)
    exact = cdist(patches.astype(np.float64), places).min(axis=1).max()
    assert exact <= found.covering_radius * (1 + 1e-6)  # a patch lies at most so far from the row of its own cell


@settings(max_examples=40, deadline=None)
@given(case=cases(max_steps=4, with_fixed=False))
def test_no_step_raises_the_sum_of_squares_and_one_at_most_doubles_the_radius(case: dict[str, Any]) -> None:
    patches = case["patches"].astype(np.float64)
    before = (cdist(patches, case["rows"].astype(np.float64)).min(axis=1) ** 2).sum()
    rounding = 1e-6 * (1 + np.abs(patches).max()) ** 2 * len(patches)  # of means to float32
    for steps in range(1, case["steps"] + 1):
        found = cell_means(case["patches"], case["rows"], steps=steps)
        after = (cdist(patches, found.means.astype(np.float64)).min(axis=1) ** 2).sum()
        assert after <= before + rounding
        before = after
        assert found.covering_radius <= 2**steps * case["radius"] + 1e-4


def test_empty_cells_keep_their_row() -> None:
    patches = np.array([[0.0], [0.0], [4.0], [6.0]], np.float32)
    found = cell_means(patches, patches[[0, 1, 3]])
    assert found.counts.tolist() == [2, 0, 2]  # of equal rows the first has the patches
    assert found.means[:, 0].tolist() == [0, 0, 5]
    assert found.cell.tolist() == [0, 0, 2, 2]
    assert found.covering_radius == 1


def test_fixed_centers_take_their_patches_away_and_come_first_among_equals() -> None:
    patches = np.array([[0.0], [1.0], [2.0], [9.0], [11.0]], np.float32)
    found = cell_means(patches, patches[[2, 4]], fixed=np.array([[0.0], [2.0]], np.float32))
    assert found.cell.tolist() == [-1, -1, -1, 1, 1]
    assert found.counts.tolist() == [0, 2]
    assert found.means[:, 0].tolist() == [2, 10]


@pytest.mark.parametrize("dim", [24, 640])
def test_threads_and_blocks_do_not_change_a_byte(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    patches = (rng.normal(size=(1500, 8)) @ rng.normal(size=(8, dim)) + 0.1 * rng.normal(size=(1500, dim))).astype("f2")
    rows = patches[rng.permutation(1500)[:90]].astype(np.float32)
    one = cell_means(patches, rows, fixed=rows[:5] + 1, steps=2, threads=1)
    more = cell_means(patches, rows, fixed=rows[:5] + 1, steps=2, threads=4)
    monkeypatch.setattr(module, "BLOCK_ROWS", 101)
    blocks = cell_means(patches, rows, fixed=rows[:5] + 1, steps=2, threads=3)
    for other in (more, blocks):
        assert one.means.tobytes() == other.means.tobytes()
        assert one.cell.tobytes() == other.cell.tobytes()
        assert one.covering_radius == other.covering_radius


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), dim=st.integers(1, 5), rounded=st.booleans())
def test_merged_rows_are_the_weighted_means_of_what_went_into_them(seed: int, n: int, dim: int, rounded: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    rows = np.round(rows) if rounded else rows
    counts = rng.integers(0, 50, n)
    kept = rng.permutation(n)[: rng.integers(1, n + 1)]
    moved = move_rows(rows, counts, kept)
    assert moved.counts.sum() == counts.sum()
    distances = cdist(rows.astype(np.float64), rows[kept].astype(np.float64))
    for row in range(n):
        assert distances[row, moved.cell[row]] == distances[row].min()
        assert moved.cell[row] == distances[row].argmin()
    for place, (mean, count) in enumerate(zip(moved.means, moved.counts, strict=True)):
        own = moved.cell == place
        assert count == counts[own].sum()
        expected = np.average(rows[own].astype(np.float64), axis=0, weights=counts[own]) if count else rows[kept[place]]
        assert np.allclose(mean, expected, rtol=1e-5, atol=1e-6)
    exact = np.linalg.norm(rows.astype(np.float64) - moved.means[moved.cell], axis=1).max()
    assert moved.covering_radius == pytest.approx(exact, rel=1e-5, abs=1e-6)


def test_merging_means_by_their_counts_gives_the_mean_of_all_patches() -> None:
    rng = np.random.default_rng(1)
    patches = [rng.normal(size=(n, 6)).astype(np.float32) for n in (30, 75)]
    each = [cell_means(own, own[:4]) for own in patches]
    rows, counts = np.concatenate([one.means for one in each]), np.concatenate([one.counts for one in each])
    merged = move_rows(rows, counts, np.array([2]))
    assert merged.counts.tolist() == [105]
    assert np.allclose(merged.means[0], np.concatenate(patches).mean(axis=0, dtype=np.float64), atol=1e-6)


def test_values_that_are_not_finite_are_refused() -> None:
    patches = np.ones((5, 2), np.float32)
    patches[3, 1] = np.nan
    with pytest.raises(FedpatchError, match="NaN or infinity"):
        cell_means(patches, patches[:1])


def test_patches_are_not_copied_as_a_whole() -> None:
    patches = np.random.default_rng(2).normal(size=(200_000, 32)).astype(np.float16)
    rows = patches[:40].astype(np.float32)
    cell_means(patches[:100], rows, threads=1)
    tracemalloc.start()
    try:
        cell_means(patches, rows, threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000 * 32 * 4  # of a copy in float32
