"""The GPU's way of searching, run on torch's CPU device: the answers of the CPU's own way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.device_work import Work
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.neighbors import on_device
from pipeline_lib.neighbors.exact import ExactSearch
from pipeline_lib.neighbors.on_device import (
    DeviceSearch,
    product,
    product_is_accurate,
    product_unit,
    squared_differences,
)
from tests.feature_fixtures import any_rows, features

CPU = torch.device("cpu")


def assert_same(bank: np.ndarray, queries: np.ndarray, kept: int) -> None:
    """Rows by the float64 differences; the distance as the CPU's."""
    distances, indices = DeviceSearch(bank, CPU).search(queries, kept)
    squares = ((queries[:, None].astype(np.float64) - bank) ** 2).sum(axis=2)
    order = np.argsort(squares, axis=1, kind="stable")[:, :kept]
    expected = np.sqrt(np.take_along_axis(squares, order, 1))
    found = np.sqrt(np.take_along_axis(squares, indices, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(distances, expected.astype(np.float32), rtol=2e-7)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "BLOCK_BYTES", 8 * 9 * 70)
    monkeypatch.setattr(on_device, "PRODUCT_BYTES", 4 * 70 * 33)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("free", [np.inf, 1000.0])
@pytest.mark.parametrize("kept", [1, 5, 100])
def test_search_answers_as_the_cpu_does(kept: int, free: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "free_bytes", lambda _: free)
    bank, queries = features(seed=0), features(80, seed=1)
    searcher = DeviceSearch(bank, CPU)
    assert searcher.rows.resident == (free == np.inf)
    distances, indices = searcher.search(queries, kept)
    expected, rows = ExactSearch(bank).search(queries, kept)
    np.testing.assert_array_equal(indices, rows)
    np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_each_kind_of_product_leaves_the_answer_alone(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "product_is_accurate", lambda _, asked: asked == dtype)
    bank, queries = features(dim=40), features(80, 40, seed=1)
    assert DeviceSearch(bank, CPU).dtype == dtype
    assert_same(bank, queries, 3)


@pytest.mark.parametrize("offset", [0.0, 1e5, -3e7])
@pytest.mark.parametrize("spread", [1.0, 1e-20, 1e12, 1e30])
def test_is_exact_under_offset_and_scale(offset: float, spread: float) -> None:
    values = features(200, 24) * np.float32(spread) + np.float32(offset)
    assert_same(values, values[::3] + np.float32(0.01 * spread), 2)


def test_queries_beyond_float16_are_compared_with_every_row() -> None:
    bank = features()
    queries = np.concatenate([features(20, seed=1), features(20, seed=2) * np.float32(1e6), bank[:3]])
    with Work() as work:
        assert_same(bank, queries, 1)
    assert work.counts["measured"] >= 20 * len(bank)


def test_copies_are_the_lowest_row_first() -> None:
    bank = np.repeat(features(40), 30, axis=0)
    queries = features(30, seed=2)
    memory = MemoryBank(bank, device=torch.device("cuda"))
    memory.device = CPU
    distances, indices = memory.query(queries, 2)
    expected, rows = ExactSearch(bank).search(queries, 2)
    np.testing.assert_array_equal(indices, rows)
    np.testing.assert_array_equal(distances, expected)
    same, _ = DeviceSearch(np.full((30, 4), 7.1, np.float32), CPU).search(np.full((2, 4), 7.1, np.float32), 3)
    assert (same == 0).all()


def test_out_of_gpu_memory_goes_on_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(DeviceSearch, "search", fail)
    memory, queries = MemoryBank(features(), device=torch.device("cuda")), features(30, seed=2)
    memory.device = CPU
    np.testing.assert_array_equal(memory.query(queries, 2)[1], ExactSearch(features()).search(queries, 2)[1])
    assert memory.device is None


@settings(max_examples=40)
@given(
    values=any_rows(least=2),
    share=st.floats(0.1, 1),
)
def test_any_finite_data(values: np.ndarray, share: float) -> None:
    bank = values[1:]
    assert_same(bank, values, max(1, int(share * len(bank))))


def tensor_core_sum(left: np.ndarray, right: np.ndarray) -> float:
    """Four products and the sum so far, each cut to 2^-23 of the largest, as is what comes out."""

    def cut(values: np.ndarray, place: float) -> np.ndarray:
        result: np.ndarray = np.trunc(values / place) * place
        return result

    total = 0.0
    for start in range(0, len(left), 4):
        terms = np.append(left[start : start + 4] * right[start : start + 4], total)
        largest = np.abs(terms).max()
        if largest == 0:
            continue
        total = float(cut(terms, 2.0 ** (np.floor(np.log2(largest)) - 23)).sum())
        total = float(cut(np.array(total), 2.0 ** (np.floor(np.log2(abs(total))) - 23))) if total else 0.0
    return total


@settings(max_examples=60)
@given(
    values=arrays(np.float16, st.tuples(st.just(2), st.integers(1, 60)), elements=st.floats(-100, 100, width=16)),
    same_sign=st.booleans(),
)
def test_products_keep_to_their_margin(values: np.ndarray, same_sign: bool) -> None:
    """Also as tensor cores are known to sum, which here are imitated."""
    left, right = (np.abs(values) if same_sign else values).astype(np.float64)
    exact, sizes = float(left @ right), float(np.abs(left) @ np.abs(right))
    for dtype in (torch.float16, torch.float32):
        found = product(*(torch.from_numpy(side)[None].to(dtype) for side in (left, right)))
        assert abs(float(found) - exact) <= product_unit(len(left), dtype) * sizes
    assert abs(tensor_core_sum(left, right) - exact) <= product_unit(len(left), torch.float16) * sizes


def test_products_that_round_to_tensorfloat32_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        short = [((side.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32) for side in (left, right)]
        return short[0] @ short[1].T

    assert all(product_is_accurate(CPU, dtype) for dtype in (torch.float16, torch.float32))
    monkeypatch.setattr(on_device, "product", rounded)
    assert not product_is_accurate(CPU, torch.float32)


def test_the_same_pair_has_the_same_bits_among_any_others() -> None:
    rng = np.random.default_rng(0)
    for dim in (1, 2, 7, 152, 153):
        left, right = (torch.from_numpy(rng.normal(size=(50, dim))) for _ in range(2))
        together = squared_differences(left, right)
        assert together.tolist() == [float(squared_differences(left[i : i + 1], right[i : i + 1])) for i in range(50)]
        np.testing.assert_allclose(together, ((left - right) ** 2).sum(dim=1), rtol=1e-14)


def test_few_pairs_are_measured() -> None:
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(8, 64))
    bank, queries = ((rng.gamma(2.0, size=(n, 8)) @ basis).astype(np.float32) for n in (2000, 500))
    with Work() as work:
        DeviceSearch(bank, CPU).search(queries, 1)
    assert work.counts["measured"] < 8 * len(queries)
    assert work.counts["waits"] < 20
