"""A search by clusters answers as one that measures every row, and leaves most rows out where they lie in clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_lib.neighbors import clusters, exact
from pipeline_lib.neighbors.bfloat16_products import bfloat16_product_is_accurate
from pipeline_lib.neighbors.bounds import Float32Bounds
from pipeline_lib.neighbors.exact import ExactSearch


@pytest.fixture(autouse=True)
def _small_clusters_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "has_fast_bfloat16", lambda: False)
    monkeypatch.setattr(exact, "FEWEST_ROWS", 40)
    monkeypatch.setattr(clusters, "ROWS_A_CLUSTER", 8)
    monkeypatch.setattr(clusters, "MOST_ROWS", 16)


def grouped(rows: int, dim: int, *, spread: float, seed: int) -> np.ndarray:
    """Rows about ten places, a tenth of them twice."""
    rng = np.random.default_rng(seed)
    made = 3 + rng.normal(size=(10, dim))[rng.integers(10, size=rows)] + spread * rng.normal(size=(rows, dim))
    made[: rows // 10] = made[-(rows // 10) :]
    return made.astype(np.float32)


def slow_search(queries: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    squares = ((queries[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    return np.sqrt(squares.min(axis=1)).astype(np.float32), squares.argmin(axis=1)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(40, 300),
    dim=st.sampled_from([3, 40, 150]),
    spread=st.sampled_from([0.0, 1e-3, 0.3, 3.0]),
    scale=st.sampled_from([1e-18, 1.0, 1e17]),
    far=st.sampled_from([0.0, 1.0, 1e4]),
)
def test_distances_and_rows_are_those_of_all(
    seed: int, rows: int, dim: int, spread: float, scale: float, far: float
) -> None:
    bank = grouped(rows, dim, spread=spread, seed=seed) * np.float32(scale)
    rng = np.random.default_rng(seed)
    queries = (bank[rng.integers(rows, size=50)] + far * scale * rng.normal(size=(50, dim))).astype(np.float32)
    search = ExactSearch(bank, threads=1)
    assert search.clusters is not None
    assert sorted(search.clusters.order) == list(range(rows))
    distances, indices = search.search(queries)
    expected, nearest = slow_search(queries, bank)
    np.testing.assert_allclose(distances[:, 0], expected, rtol=1e-6)
    same = (queries[:, None] == bank[None]).all(axis=2)  # of equal rows the first
    assert (indices[:, 0] == nearest)[same.any(axis=1)].all()
    several, _ = search.search(queries, 5)
    np.testing.assert_array_equal(several[:, 0], distances[:, 0])


def test_pairs_that_are_too_many_to_hold_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = grouped(400, 30, spread=2.0, seed=1)
    queries = grouped(333, 30, spread=2.0, seed=2)
    whole = ExactSearch(bank, threads=2).search(queries)
    monkeypatch.setattr(exact, "MOST_PAIRS", 50)
    in_parts = ExactSearch(bank, threads=2).search(queries)
    assert [part.tobytes() for part in whole] == [part.tobytes() for part in in_parts]


def test_far_clusters_are_left_out() -> None:
    bank = grouped(800, 20, spread=0.05, seed=3)
    search = ExactSearch(bank, threads=1)
    assert search.clusters is not None
    assert isinstance(search.bounds, Float32Bounds)
    queries = search.forms.of_queries(bank[:100] + np.float32(0.01))
    left = search.bounds.left(queries.short)
    _, to_centers = search.clusters.nearby(left, queries.squares)
    reach = np.full(100, (0.1 * search.forms.scale) ** 2)
    pairs = sum(len(places) for places, _ in search.clusters.within(left, queries.squares, to_centers, reach))
    assert 100 <= pairs < 100 * 800 / 5


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    rows=st.sampled_from([30, 45, 300, 800]),
    dim=st.sampled_from([3, 150, 600]),
    spread=st.sampled_from([0.0, 0.3]),
    moved=st.sampled_from([0.0, 0.1, 100.0]),
    fast=st.booleans(),
)
def test_a_revised_search_answers_as_one_made_anew(
    seed: int, rows: int, dim: int, spread: float, moved: float, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "has_fast_bfloat16", lambda: fast and bfloat16_product_is_accurate())
    bank = grouped(rows, dim, spread=spread, seed=seed)
    rng = np.random.default_rng(seed)
    source = np.flatnonzero(rng.random(rows) < rng.choice([0.1, 0.8, 1.0]))
    source = source if len(source) else np.array([rows - 1])
    left = bank[source]
    changed = rng.random(len(left)) < rng.choice([0.0, 0.3, 1.0])
    left[changed] += (moved * rng.normal(size=(changed.sum(), dim))).astype(np.float32)
    search = ExactSearch(bank, threads=1)
    before = search.search(bank[:40])
    revised = search.revised(left, np.where(changed, -1, source))
    queries = np.concatenate([left[:30], bank[:40]]) + np.float32(0.01)
    for kept in (1, 3):
        found, expected = revised.search(queries, kept), ExactSearch(left, threads=1).search(queries, kept)
        assert [part.tobytes() for part in found] == [part.tobytes() for part in expected]
    assert [part.tobytes() for part in search.search(bank[:40])] == [part.tobytes() for part in before]


def test_a_revised_search_is_made_anew_for_a_row_beyond_the_largest_norm() -> None:
    bank = grouped(300, 20, spread=0.3, seed=4)
    search, source = ExactSearch(bank, threads=1), np.arange(300)
    source[7] = -1
    near, far = bank.copy(), bank.copy()
    near[7] += np.float32(0.1)
    far[7] *= np.float32(1e4)
    assert search.revised(near, source).forms is search.forms
    assert search.revised(far, source).forms is not search.forms  # whose margins are for norms of at most 1
