"""Selection from shards: its radius bound holds, and it stays near the selection from all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset import covering_radius, greedy_coreset_selection
from pipeline_lib.coreset.streaming import streaming_coreset_selection


def rows_of(count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(count, 6)) * generator.choice([0.2, 3.0], size=(count, 1))).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8), target=st.integers(1, 12), seed=st.integers(0, 99))
def test_bound_holds_and_indices_name_the_rows(sizes: list[int], target: int, seed: int) -> None:
    everything = rows_of(sum(sizes), seed)
    shards = np.split(everything, np.cumsum(sizes)[:-1])
    if sum(sizes) < target:
        with pytest.raises(FedpatchError, match=f"shards hold {sum(sizes)}"):
            streaming_coreset_selection(shards, target, rng=np.random.default_rng(0), threads=1)
        return
    result = streaming_coreset_selection(shards, target, rng=np.random.default_rng(0), threads=1)
    assert len(np.unique(result.indices)) == target
    np.testing.assert_array_equal(result.features, everything[result.indices])
    assert covering_radius(everything, result.features, threads=1) <= result.radius_bound * (1 + 1e-6) + 1e-12


def test_memory_mapped_shards_come_near_the_whole(tmp_path: Path) -> None:
    everything = rows_of(6000, 1)
    for number, shard in enumerate(np.split(everything, 6)):
        np.save(tmp_path / f"{number}.npy", shard)
    shards = (np.load(path, mmap_mode="r") for path in sorted(tmp_path.iterdir()))
    streamed = streaming_coreset_selection(shards, 120, rng=np.random.default_rng(2), threads=1)
    whole = greedy_coreset_selection(everything, 120, rng=np.random.default_rng(2), threads=1)
    assert covering_radius(everything, streamed.features, threads=1) < 1.3 * whole.covering_radius


def test_one_shard_with_all_kept_is_the_whole_selection() -> None:
    everything = rows_of(50, 3)
    streamed = streaming_coreset_selection([everything], 25, rng=np.random.default_rng(0), oversampling=2.0, threads=1)
    assert streamed.radius_bound == pytest.approx(covering_radius(everything, streamed.features, threads=1), rel=1e-6)


def test_refuses_shards_that_do_not_fit() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(FedpatchError, match=r"shard 1 is float32 of shape \(5, 4\)"):
        streaming_coreset_selection([rows_of(5, 0), rows_of(5, 0)[:, :4]], 2, rng=rng, threads=1)
    with pytest.raises(FedpatchError, match="must both be at least 1"):
        streaming_coreset_selection([rows_of(5, 0)], 0, rng=rng, threads=1)
