"""Merging in regions: the bound on the radius against exact distances, and what is held at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.composition import Kept, StationRows, reduce_regions
from pipeline_lib.coreset.kcenter import greedy_coreset_selection


def station(patches: np.ndarray, rows: int, seed: int) -> StationRows:
    """A station that selects `rows` of its patches."""
    selection = greedy_coreset_selection(patches, rows, rng=np.random.default_rng(seed))
    return StationRows(patches[selection.indices], selection.covering_radius)


def keep(number: int, rows: np.ndarray, row_station: np.ndarray) -> tuple[Kept, float]:
    """At most five rows of a region."""
    selection = greedy_coreset_selection(rows, min(5, len(rows)), rng=np.random.default_rng(number))
    return selection.indices, selection.covering_radius


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), n_stations=st.integers(1, 9), per_region=st.integers(1, 4))
def test_every_patch_of_every_station_lies_within_the_bound(seed: int, n_stations: int, per_region: int) -> None:
    rng = np.random.default_rng(seed)
    patches = [rng.normal(rng.normal(size=3) * 4, 1.0, (20, 3)).astype(np.float32) for _ in range(n_stations)]
    stations = [station(own, 6, i) for i, own in enumerate(patches)]
    regions = [stations[start : start + per_region] for start in range(0, n_stations, per_region)]
    reduced = reduce_regions(regions, keep)
    exact = cdist(np.concatenate(patches), reduced.rows).min(axis=1).max()
    assert exact <= (reduced.station_radius + reduced.region_radius) * (1 + 1e-6) + 1e-6
    assert (reduced.stations, reduced.regions, reduced.rows_sent) == (n_stations, len(regions), 6 * n_stations)
    for row, number in zip(reduced.rows, reduced.row_station, strict=True):
        assert (stations[number].rows == row).all(axis=1).any()


def test_the_regions_radius_is_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    stations = [StationRows(rng.normal(size=(15, 4)).astype(np.float32)) for _ in range(6)]
    reduced = reduce_regions([stations[:3], stations[3:]], keep)
    radii = [
        cdist(np.concatenate([one.rows for one in own]), kept).min(axis=1).max()
        for own, kept in zip((stations[:3], stations[3:]), np.split(reduced.rows, 2), strict=True)
    ]
    assert reduced.region_radius == pytest.approx(max(radii), rel=1e-5)


def test_stations_are_taken_a_region_at_a_time_and_rows_that_are_held_are_counted() -> None:
    taken: list[int] = []

    def source(numbers: range) -> Iterator[StationRows]:
        for number in numbers:
            taken.append(number)
            yield StationRows(np.random.default_rng(number).normal(size=(7, 2)).astype(np.float32))

    done: list[tuple[int, int]] = []

    def counted(number: int, rows: np.ndarray, row_station: np.ndarray) -> tuple[Kept, float]:
        done.append((number + 1, len(taken)))
        return keep(number, rows, row_station)

    reduced = reduce_regions((source(range(start, min(10, start + 4))) for start in range(0, 10, 4)), counted)
    assert done == [(1, 4), (2, 8), (3, 10)]
    assert reduced.peak_rows == 5 + 28


def test_no_stations_are_refused() -> None:
    with pytest.raises(FedpatchError, match="no stations"):
        reduce_regions([], keep)
