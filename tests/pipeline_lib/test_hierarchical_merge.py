"""Merging in regions: the bound on the radius against exact distances, and what is held at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset import greedy_coreset_selection
from pipeline_lib.hierarchical_merge import StationRows, merge_in_regions


def station(patches: np.ndarray, rows: int, seed: int) -> StationRows:
    """A station that selects `rows` of its patches."""
    selection = greedy_coreset_selection(patches, rows, rng=np.random.default_rng(seed))
    return StationRows(patches[selection.indices], selection.covering_radius)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_stations=st.integers(1, 9),
    per_region=st.integers(1, 4),
    region_rows=st.integers(1, 12),
    bank_rows=st.integers(1, 12),
)
def test_every_patch_of_every_station_lies_within_the_bound(
    seed: int, n_stations: int, per_region: int, region_rows: int, bank_rows: int
) -> None:
    rng = np.random.default_rng(seed)
    patches = [rng.normal(rng.normal(size=3) * 4, 1.0, (20, 3)).astype(np.float32) for _ in range(n_stations)]
    stations = [station(own, 6, i) for i, own in enumerate(patches)]
    bank = merge_in_regions(
        stations, stations_per_region=per_region, region_rows=region_rows, bank_rows=bank_rows, seed=seed
    )
    exact = cdist(np.concatenate(patches), bank.rows).min(axis=1).max()
    assert exact <= bank.radius_bound * (1 + 1e-6) + 1e-6
    assert bank.stations == n_stations
    assert bank.regions == -(-n_stations // per_region)
    assert len(bank.rows) <= bank_rows


def test_each_level_s_radius_is_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    stations = [StationRows(rng.normal(size=(15, 4)).astype(np.float32)) for _ in range(6)]
    bank = merge_in_regions(stations, stations_per_region=3, region_rows=8, bank_rows=5, seed=1)
    kept, radii = [], []
    from pipeline_lib.seeding import stage_rng

    for region in range(2):
        rows = np.concatenate([s.rows for s in stations[3 * region : 3 * region + 3]])
        chosen = rows[greedy_coreset_selection(rows, 8, rng=stage_rng(1, "region", region)).indices]
        radii.append(cdist(rows, chosen).min(axis=1).max())
        kept.append(chosen)
    assert bank.region_radius == pytest.approx(max(radii), rel=1e-5)
    assert bank.server_radius == pytest.approx(cdist(np.concatenate(kept), bank.rows).min(axis=1).max(), rel=1e-5)


def test_a_region_is_at_most_twice_as_coarse_as_merging_all_at_once_is_at_best() -> None:
    """With one region and no reduction in it, the two-level merge is the flat one."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, 2)).astype(np.float32)
    stations = [StationRows(part) for part in np.split(rows, 4)]
    flat = merge_in_regions(stations, stations_per_region=4, region_rows=40, bank_rows=6, seed=0)
    assert (flat.region_radius, flat.regions) == (0.0, 1)
    best = min(
        cdist(rows, rows[rng.choice(40, 6, replace=False)]).min(axis=1).max() for _ in range(3000)
    )  # an upper bound of the best
    assert flat.server_radius <= 2 * best


def test_stations_are_taken_a_region_at_a_time_and_rows_that_are_held_are_counted() -> None:
    taken: list[int] = []

    def source() -> Iterator[StationRows]:
        for number in range(10):
            taken.append(number)
            yield StationRows(np.random.default_rng(number).normal(size=(7, 2)).astype(np.float32))

    done: list[tuple[int, int]] = []
    bank = merge_in_regions(
        source(), stations_per_region=4, region_rows=5, bank_rows=9, seed=0,
        progress=lambda regions: done.append((regions, len(taken))),
    )  # fmt: skip
    assert done == [(1, 4), (2, 8), (3, 10)]
    assert bank.peak_rows == 5 + 28


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(FedpatchError, match="no stations"):
        merge_in_regions([], stations_per_region=2, region_rows=1, bank_rows=1, seed=0)
    with pytest.raises(FedpatchError, match="at least 1"):
        merge_in_regions([], stations_per_region=0, region_rows=1, bank_rows=1, seed=0)
