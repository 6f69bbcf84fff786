"""Merging very many stations in two levels: each region's rows are reduced before the server sees them.

Merge and reduce (Har-Peled & Mazumdar 2004; coresets compose, Indyk et al. 2014). Every reduction is a greedy k-center
selection with a covering radius of its own, and distances obey the triangle inequality, so a patch of any station lies
within

    largest station radius + largest region radius + server radius

of the merged bank. Greedy k-center is a 2-approximation of the best k centers (Gonzalez 1985), so a region's radius is
at most twice that of the best `region_rows` rows of its stations, and the server's at most twice that of the best
`bank_rows` rows of the regions' rows.

Stations come from an iterator and are held a region at a time: at most stations_per_region x rows of a station +
regions x region_rows rows, however many stations there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset import greedy_coreset_selection
from pipeline_lib.seeding import stage_rng


@dataclass(frozen=True)
class StationRows:
    """What one station sends: float (row, dim), and how far its own patches lie from them at most."""

    rows: np.ndarray
    covering_radius: float = 0.0


@dataclass(frozen=True)
class RegionalBank:
    """The merged bank and the parts of its radius; all distances, not squared."""

    rows: np.ndarray  # (bank row, dim)
    station_radius: float  # largest of any station
    region_radius: float  # largest of any region, over its stations' rows
    server_radius: float  # over the regions' rows
    stations: int
    regions: int
    peak_rows: int  # most rows held at a time

    @property
    def radius_bound(self) -> float:
        """No patch of any station lies further than this from the bank."""
        return self.station_radius + self.region_radius + self.server_radius


def merge_in_regions(
    stations: Iterable[StationRows],
    *,
    stations_per_region: int,
    region_rows: int,
    bank_rows: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> RegionalBank:
    """Merge stations, in their order, region by region; `progress` gets the number of regions done.

    Where a region has no more than `region_rows`, or the regions no more than `bank_rows`, all are kept. Raises
    FedpatchError without stations, or where a size is below 1.
    """
    if min(stations_per_region, region_rows, bank_rows) < 1:
        raise FedpatchError("stations_per_region, region_rows and bank_rows must be at least 1")
    kept: list[np.ndarray] = []
    n_stations = held = peak = 0
    station_radius = region_radius = 0.0
    source = iter(stations)
    for region in itertools.count():
        members = list(itertools.islice(source, stations_per_region))
        if not members:
            break
        n_stations += len(members)
        station_radius = max(station_radius, *(member.covering_radius for member in members))
        joined = _joined(members)
        del members
        peak = max(peak, held + len(joined))
        chosen, radius = _reduced(joined, region_rows, stage_rng(seed, "region", region))
        del joined  # before the next region is gathered
        kept.append(chosen)
        held += len(chosen)
        region_radius = max(region_radius, radius)
        if progress:
            progress(region + 1)
    if not kept:
        raise FedpatchError("there are no stations to merge")
    rows, server_radius = _reduced(np.concatenate(kept), bank_rows, stage_rng(seed, "server"))
    return RegionalBank(
        rows, station_radius, region_radius, server_radius, n_stations, len(kept), max(peak, held + len(rows))
    )


def _joined(members: list[StationRows]) -> np.ndarray:
    """The rows of a region in one array; each station's own array is let go once it is copied."""
    rows = np.empty((sum(len(m.rows) for m in members), members[0].rows.shape[1]), members[0].rows.dtype)
    start = 0
    while members:
        own = members.pop(0).rows
        rows[start : start + len(own)] = own
        start += len(own)
    return rows


def _reduced(rows: np.ndarray, target: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(chosen rows, covering radius over all of them)."""
    if len(rows) <= target:
        return rows, 0.0
    selection = greedy_coreset_selection(rows, target, rng=rng)
    return rows[selection.indices], selection.covering_radius
