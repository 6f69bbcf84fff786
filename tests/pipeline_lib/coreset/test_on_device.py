"""The GPU's way of selecting, run on torch's CPU device: the picks of the CPU's own way and of the slow reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.device_work import Work
from data_contracts.errors import FedpatchError
from pipeline_lib.coreset import on_device
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.on_device import kcenter_selection, select_on_device
from pipeline_lib.neighbors import on_device as rows_on_device
from tests.feature_fixtures import any_rows, features
from tests.reference_coreset import replay, slow_k_center

CPU = torch.device("cpu")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_exact(values: np.ndarray, size: int, *, initial_centers: np.ndarray | None = None) -> None:
    found = select_on_device(values, size, device=CPU, rng=rng(1), initial_centers=initial_centers)
    assert len(np.unique(found.indices)) == size
    own, largest, radius = replay(values, found.indices, initial_centers=initial_centers)
    first = 1 if initial_centers is None else 0
    assert (own[first:] >= (1 - 1e-12) * largest[first:]).all()
    np.testing.assert_allclose(found.pick_distances[first:], own[first:], rtol=1e-12, atol=1e-30)
    assert found.covering_radius == pytest.approx(radius, rel=1e-12, abs=1e-30)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few rows, rounds of few candidates, pools of fewer."""
    monkeypatch.setattr(rows_on_device, "BLOCK_BYTES", 8 * 9 * 70)
    monkeypatch.setattr(on_device, "CANDIDATES", 50)
    monkeypatch.setattr(on_device, "POOL_ROWS", 20)
    monkeypatch.setattr(on_device, "CENTERS_PER_PRODUCT", 7)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows stay in the host's memory."""
    monkeypatch.setattr(rows_on_device, "free_bytes", lambda _: 1000.0)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 40, 300])
def test_picks_are_those_of_the_cpu(dtype: type, size: int) -> None:
    rows: np.ndarray = features().astype(dtype)
    expected = greedy_coreset_selection(rows, size, rng=rng(3))
    found = select_on_device(rows, size, device=CPU, rng=rng(3))
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.pick_distances, expected.pick_distances, rtol=1e-12)
    assert found.covering_radius == pytest.approx(expected.covering_radius, rel=1e-12)


@pytest.mark.usefixtures("small_blocks", "little_memory")
def test_rows_that_do_not_fit_are_copied_round_by_round(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", features(400).astype(np.float16))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    expected = greedy_coreset_selection(rows, 90, rng=rng(3))
    assert select_on_device(rows, 90, device=CPU, rng=rng(3)).indices.tolist() == expected.indices.tolist()


def test_given_centers() -> None:
    rows = features()
    centers = rows[5:9] + np.float32(0.01)
    seen: list[tuple[int, int]] = []
    expected = greedy_coreset_selection(rows, 40, rng=rng(1), initial_centers=centers)
    found = select_on_device(
        rows, 40, device=CPU, rng=rng(1), initial_centers=centers, progress=lambda *done: seen.append(done)
    )
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.covering_radius == pytest.approx(expected.covering_radius, rel=1e-12)
    assert seen[-1] == (40, 40)
    assert_exact(rows, 30, initial_centers=centers * np.float32(-1e6))


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e5, -3e7])
@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-20, 1e12])
def test_is_exact_under_offset_and_scale(offset: float, spread: float) -> None:
    assert_exact(features(600, 24) * np.float32(spread) + np.float32(offset), 60)


def test_is_exact_among_near_duplicates_beside_far_outliers() -> None:
    """Products in float32 rule nothing out here, those in float64 do."""
    base = rng().normal(size=(5, 152)).astype(np.float32)
    near = base[rng().integers(5, size=900)] * (1 + 1e-6 * rng().normal(size=(900, 152)))
    assert_exact(np.concatenate([near, 1e4 * rng().normal(size=(20, 152))]).astype(np.float32), 150)


@pytest.mark.parametrize("pool_rows", [1, 5, 512])
def test_is_exact_on_a_grid_full_of_ties(pool_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "POOL_ROWS", pool_rows)
    monkeypatch.setattr(on_device, "CANDIDATES", 8 * pool_rows)
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    rows = grid[rng().permutation(len(grid))]
    found = select_on_device(rows, 150, device=CPU, rng=rng())
    assert found.indices.tolist() == slow_k_center(rows, 150, start=int(found.indices[0]))


@pytest.mark.usefixtures("small_blocks")
def test_duplicates_of_selected_rows_follow_in_order() -> None:
    rows = np.repeat(features(10, 3), 40, axis=0)
    expected = greedy_coreset_selection(rows, 30, rng=rng(0))
    found = select_on_device(rows, 30, device=CPU, rng=rng(0))
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.covering_radius == 0
    constant = select_on_device(np.full((50, 3), 7.1, np.float32), 4, device=CPU, rng=rng(0))
    start = int(constant.indices[0])
    assert constant.indices.tolist() == [start, *[i for i in range(50) if i != start][:3]]


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=30)
@given(
    values=any_rows(),
    share=st.floats(0.01, 1),
)
def test_any_finite_data(values: np.ndarray, share: float) -> None:
    assert_exact(values, max(1, int(share * len(values))))


def test_what_is_not_finite_or_too_large_is_refused() -> None:
    rows = features()
    rows[7, 2] = np.nan
    with pytest.raises(FedpatchError, match="first in row 7"):
        select_on_device(rows, 5, device=CPU, rng=rng())
    with pytest.raises(FedpatchError, match="rescale them"):
        select_on_device(features().astype(np.float64) * 1e200, 5, device=CPU, rng=rng())
    with pytest.raises(FedpatchError, match="rescale both"):
        select_on_device(features(), 5, device=CPU, rng=rng(), initial_centers=np.full((1, 9), 1e20))


def test_without_accurate_float32_the_products_are_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_on_device, "product_is_accurate", lambda *_: False)
    with Work() as work:
        assert_exact(features(), 60)
    assert not work.counts["product float32"]
    assert work.counts["product float64"]


def test_it_waits_for_the_device_a_few_times_a_round_not_at_every_pick() -> None:
    values = (rng().gamma(2.0, size=(6000, 8)) @ rng(1).normal(size=(8, 32))).astype(np.float32)
    size = 600
    with Work() as work:
        select_on_device(values, size, device=CPU, rng=rng())
    pairs = len(values) * size
    assert work.counts["waits"] < 0.4 * size
    assert work.counts["launches"] < 8 * size
    assert work.counts["product float32"] < 2.5 * pairs
    assert work.counts["measured"] < 0.04 * pairs


def test_out_of_gpu_memory_goes_on_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, rng: np.random.Generator, **__: object) -> None:
        rng.random()
        raise torch.OutOfMemoryError

    monkeypatch.setattr(on_device, "select_on_device", fail)
    rows = features()
    found = kcenter_selection(rows, 20, device=torch.device("cuda"), rng=rng(1))
    expected = greedy_coreset_selection(rows, 20, rng=rng(1))
    assert found.indices.tolist() == expected.indices.tolist()
