"""The GPU's ways of selecting and searching, run on torch's CPU device: the same answers as the CPU's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.coreset import on_device
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.on_device import kcenter_selection, select_on_device
from pipeline_lib.neighbors.exact import ExactSearch
from pipeline_lib.neighbors.on_device import DeviceSearch

CPU = torch.device("cpu")


def features(rows: int = 300, dim: int = 9, *, seed: int = 0) -> np.ndarray:
    """With duplicates, near-duplicates and an offset."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, dim)) + 100
    values[: rows // 4] = values[rows // 4 : 2 * (rows // 4)]
    return values.astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 40, 300])
def test_picks_are_those_of_the_cpu(dtype: type, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "BLOCK_BYTES", 8 * 9 * 70)
    rows = features().astype(dtype)
    expected = greedy_coreset_selection(rows, size, rng=np.random.default_rng(3))
    found = select_on_device(rows, size, device=CPU, rng=np.random.default_rng(3))
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.pick_distances, expected.pick_distances, rtol=1e-12)
    assert found.covering_radius == pytest.approx(expected.covering_radius, rel=1e-12)


def test_given_centers() -> None:
    rows = features()
    given = rows[5:9] + np.float32(0.01)
    seen: list[tuple[int, int]] = []
    expected = greedy_coreset_selection(rows, 40, rng=np.random.default_rng(1), initial_centers=given)
    found = select_on_device(
        rows,
        40,
        device=CPU,
        rng=np.random.default_rng(1),
        initial_centers=given,
        progress=lambda *done: seen.append(done),
    )
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.covering_radius == pytest.approx(expected.covering_radius, rel=1e-12)
    assert seen == [(40, 40)]


def test_out_of_gpu_memory_goes_on_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, rng: np.random.Generator, **__: object) -> None:
        rng.random()
        raise torch.OutOfMemoryError

    monkeypatch.setattr(on_device, "select_on_device", fail)
    rows = features()
    found = kcenter_selection(rows, 20, device=torch.device("cuda"), rng=np.random.default_rng(1))
    expected = greedy_coreset_selection(rows, 20, rng=np.random.default_rng(1))
    assert found.indices.tolist() == expected.indices.tolist()


@pytest.mark.parametrize("kept", [1, 5])
def test_search_answers_as_the_cpu_does(kept: int) -> None:
    bank, queries = features(seed=0), features(80, seed=1)
    distances, indices, decided = DeviceSearch(bank, CPU).search(queries, kept)
    expected, rows = ExactSearch(bank).search(queries, kept)
    assert decided.all()
    np.testing.assert_array_equal(indices, rows)
    np.testing.assert_array_equal(distances, expected)


def test_a_bank_of_copies_is_left_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = np.repeat(features(40), 30, axis=0)
    queries = features(30, seed=2)
    assert not DeviceSearch(bank, CPU).search(queries, 1)[2].any()
    memory = MemoryBank(bank, device=torch.device("cuda"))
    memory.device = CPU
    distances, indices = memory.query(queries, 2)
    expected, rows = ExactSearch(bank).search(queries, 2)
    np.testing.assert_array_equal(indices, rows)
    np.testing.assert_array_equal(distances, expected)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(DeviceSearch, "search", fail)
    np.testing.assert_array_equal(memory.query(queries, 2)[1], rows)
    assert memory.device is None
