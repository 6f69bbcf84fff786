"""The memory bank against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_contracts.errors import FedpatchError
from pipeline_lib.bank.memory_bank import MemoryBank


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def correlated(rows: int, dim: int, seed: int) -> np.ndarray:
    """Rows near a low-dimensional sheet, as features are."""
    mixing = rng(77).normal(size=(min(dim, 10), dim))
    generator = rng(seed)
    points = generator.normal(size=(rows, min(dim, 10))) @ mixing + 0.2 * generator.normal(size=(rows, dim))
    return points.astype(np.float32)


def true_distances(queries: np.ndarray, bank: np.ndarray) -> np.ndarray:
    differences = queries[:, None].astype(np.float64) - bank[None].astype(np.float64)
    return np.sqrt((differences**2).sum(axis=2))


def assert_true_neighbors(bank: MemoryBank, queries: np.ndarray, num_neighbors: int) -> None:
    distances, indices = bank.query(queries, num_neighbors)
    kept = min(num_neighbors, len(bank))
    assert distances.dtype == np.float32
    assert indices.dtype == np.int64
    assert distances.shape == indices.shape == (len(queries), kept)
    true = true_distances(queries, bank.features)
    expected = np.sort(true, axis=1)[:, :kept]
    tolerance = 1e-5 * expected + 1e-6 * np.linalg.norm(queries.astype(np.float64), axis=1)[:, None]
    tolerance += np.finfo(np.float32).smallest_subnormal  # no float32 lies nearer
    assert (np.abs(distances - expected) <= tolerance).all()
    assert (np.abs(np.take_along_axis(true, indices, 1) - distances) <= tolerance).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert all(len(set(row)) == kept for row in indices.tolist())


@pytest.mark.parametrize("use_faiss", [True, False])
@pytest.mark.parametrize("num_neighbors", [1, 5, 400])
@pytest.mark.parametrize(
    ("rows", "dim", "offset"), [(1, 4, 0), (300, 1, 0), (300, 24, 0), (300, 24, 3e4), (900, 160, 50)]
)
def test_exact_search(rows: int, dim: int, offset: float, num_neighbors: int, use_faiss: bool) -> None:
    bank = MemoryBank(correlated(rows, dim, 0) + np.float32(offset), use_faiss=use_faiss, threads=1)
    assert (len(bank), bank.dim) == (rows, dim)
    assert_true_neighbors(bank, correlated(70, dim, 1) + np.float32(offset), num_neighbors)


@pytest.mark.parametrize("use_faiss", [True, False])
def test_rows_of_the_bank_find_themselves_at_zero(use_faiss: bool) -> None:
    features = correlated(500, 30, 0) + np.float32(1000)
    distances, indices = MemoryBank(features, use_faiss=use_faiss, threads=1).query(features)
    assert (distances == 0).all()
    np.testing.assert_array_equal(indices[:, 0], np.arange(500))


@settings(max_examples=60)
@given(
    bank=arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-1e6, 1e6, width=32)),
    queries=arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-1e6, 1e6, width=32)),
    num_neighbors=st.integers(1, 6),
)
def test_exact_search_on_any_data(bank: np.ndarray, queries: np.ndarray, num_neighbors: int) -> None:
    assert_true_neighbors(MemoryBank(bank, threads=1), queries, num_neighbors)


@pytest.mark.parametrize("search", ["ivf", "hnsw", "pq"])
def test_approximate_search_finds_nearly_all(search: str) -> None:
    bank = MemoryBank(correlated(3000, 40, 0) + np.float32(200), search=search, seed=3, threads=1)  # type: ignore[arg-type]
    queries = correlated(200, 40, 1) + np.float32(200)
    assert bank.recall(queries, 3) > 0.9
    distances, indices = bank.query(queries, 3)
    np.testing.assert_allclose(
        distances, np.take_along_axis(true_distances(queries, bank.features), indices, 1), rtol=1e-5
    )
    again = MemoryBank(bank.features, search=search, seed=3, threads=1).query(queries, 3)  # type: ignore[arg-type]
    np.testing.assert_array_equal(indices, again[1])


@pytest.mark.parametrize("search", ["ivf", "hnsw", "pq"])
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_approximate_search_in_tiny_banks(search: str, rows: int) -> None:
    bank = MemoryBank(correlated(rows, 6, 0), search=search, threads=1)  # type: ignore[arg-type]
    distances, indices = bank.query(correlated(9, 6, 1), 5)
    assert distances.shape == (9, min(rows, 5))
    assert np.isfinite(distances).all()
    assert all(len(set(row)) == min(rows, 5) for row in indices.tolist())


def test_exact_recall_is_one() -> None:
    assert MemoryBank(correlated(200, 8, 0), threads=1).recall(correlated(50, 8, 1), 4) == 1.0


def test_refuses_bad_input() -> None:
    with pytest.raises(FedpatchError, match="no rows"):
        MemoryBank(np.empty((0, 4), np.float32))
    with pytest.raises(FedpatchError, match="NaN or infinity, first in row 1"):
        MemoryBank(np.array([[0.0], [np.nan]], np.float32))
    with pytest.raises(FedpatchError, match="expected floats"):
        MemoryBank(np.zeros((2, 2), np.int32))
    with pytest.raises(FedpatchError, match="exact, ivf, hnsw, pq"):
        MemoryBank(np.zeros((2, 2), np.float32), search="lsh")  # type: ignore[arg-type]
    with pytest.raises(FedpatchError, match="use_faiss: true"):
        MemoryBank(np.zeros((2, 2), np.float32), use_faiss=False, search="ivf")
    bank = MemoryBank(np.zeros((2, 2), np.float32))
    with pytest.raises(FedpatchError, match="got 3 dimensions, the bank has 2"):
        bank.query(np.zeros((1, 3), np.float32))
    with pytest.raises(FedpatchError, match="queries: NaN"):
        bank.query(np.full((1, 2), np.inf, np.float32))
    with pytest.raises(FedpatchError, match="num_neighbors is 0"):
        bank.query(np.zeros((1, 2), np.float32), 0)
    assert bank.query(np.empty((0, 2), np.float32))[0].shape == (0, 1)


def test_search_far_from_the_bank_and_at_every_scale() -> None:
    features = correlated(600, 64, 0)
    for scale in (1e-30, 1.0, 1e17):
        bank = MemoryBank(features * np.float32(scale), threads=1)
        for reach in (1.0, 1e12 if scale <= 1 else 1.0):
            queries = correlated(20, 64, 1) * np.float32(scale * reach)
            distances, _ = bank.query(queries, 2)
            expected = np.sort(true_distances(queries, bank.features), axis=1)[:, :2]
            np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_wide_banks_answer_through_the_middle_form() -> None:
    bank = MemoryBank(correlated(900, 600, 0), threads=1)
    queries = correlated(50, 600, 1)
    assert bank.exact_search.middle is not None
    for num_neighbors in (1, 7):
        expected = np.sort(true_distances(queries, bank.features), axis=1)[:, :num_neighbors]
        np.testing.assert_allclose(bank.query(queries, num_neighbors)[0], expected, rtol=1e-6)


def test_threads_and_company_change_no_answer() -> None:
    bank, queries = correlated(4000, 96, 0), correlated(900, 96, 1)
    together = MemoryBank(bank, threads=2).query(queries, 4)
    alone = MemoryBank(bank, threads=1).query(queries[100:101], 4)
    np.testing.assert_array_equal(together[0][100:101], alone[0])
    np.testing.assert_array_equal(together[1][100:101], alone[1])
