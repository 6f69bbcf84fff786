"""Merging very many stations in two levels: each region's rows are reduced before the server sees them.

Merge and reduce (Har-Peled & Mazumdar 2004; coresets compose, Indyk et al. 2014). Every reduction is a greedy k-center
selection with a covering radius of its own, and distances obey the triangle inequality, so a patch of any station lies
within

    largest station radius + largest region radius + server radius

of the merged bank. Greedy k-center is a 2-approximation of the best k centers (Gonzalez 1985), so a region's radius is
at most twice that of the best `region_rows` rows of its stations, and the server's at most twice that of the best
`bank_rows` rows of the regions' rows. Where rows are means that carry counts, each reduction moves the rows that it
keeps (`cell_means.move_rows`), and its radius is the largest distance of a row to the mean that it went into: at most
twice as far again.

Stations come from an iterator and are held a region at a time: at most stations_per_region x rows of a station +
regions x region_rows rows, however many stations there are. What reduces a region, and the server's own selection, are
the caller's: `server.regions` for banks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.moved_rows import MovedRows, keep_rows

Kept = np.ndarray | slice  # indices of rows; slice(None): all
Reduce = Callable[[int, np.ndarray, np.ndarray], tuple[Kept, float]]
"""(number of the region, its rows (row, dim), the station of each row (row,)) -> (rows to keep, covering radius).

The rows are in order of their stations, which are counted over all regions.
"""


@dataclass(frozen=True)
class StationRows:
    """What one station sends: float (row, dim), and how far its own patches lie from them at most."""

    rows: np.ndarray
    covering_radius: float = 0.0
    counts: np.ndarray | None = None  # int64 (row,) where rows are means


@dataclass(frozen=True)
class ReducedRegions:
    """What the regions keep of their stations' rows; distances, not squared."""

    rows: np.ndarray  # (row, dim), region after region, each in its reduction's order
    row_station: np.ndarray  # int32 (row,): number of the station, counted over all regions
    station_radius: float  # largest of any station
    region_radius: float  # largest of any region, over its stations' rows
    stations: int
    regions: int
    rows_sent: int
    peak_rows: int  # most rows held at a time
    moved: MovedRows | None = None  # what the rows are of, where stations sent counts


def reduce_regions(regions: Iterable[Iterable[StationRows]], reduce: Reduce) -> ReducedRegions:
    """Reduce region after region; a region's stations are read when it is its turn, and let go before the next.

    Rows are moved where all stations of a region sent counts. Raises FedpatchError without stations.
    """
    kept: list[np.ndarray] = []
    moved: list[MovedRows] = []
    kept_station: list[np.ndarray] = []
    stations = sent = held = peak = 0
    station_radius = region_radius = 0.0
    for number, region in enumerate(regions):
        members = list(region)
        station_radius = max([station_radius, *(member.covering_radius for member in members)])
        numbers = np.arange(stations, stations + len(members), dtype=np.int32)
        row_station = np.repeat(numbers, [len(member.rows) for member in members])
        stations += len(members)
        parts = [member.rows for member in members]
        counts = [member.counts for member in members if member.counts is not None]
        moves = MovedRows.of(np.concatenate(counts)) if len(counts) == len(parts) else None
        del members
        rows = _joined(parts)
        sent += len(rows)
        peak = max(peak, held + len(rows))
        chosen, radius = reduce(number, rows, row_station)
        reduced, moves, distance = keep_rows(rows, chosen, radius, moves)
        moved += [] if moves is None else [moves]
        kept.append(reduced)
        kept_station.append(row_station[chosen])
        del rows, reduced  # before the next region is gathered
        held += len(kept[-1])
        region_radius = max(region_radius, distance or 0.0)
    if not kept:
        raise FedpatchError("there are no stations to merge")
    n_regions = len(kept)
    row_station = np.concatenate(kept_station)
    moves = MovedRows.joined(moved) if len(moved) == n_regions else None
    return ReducedRegions(
        _joined(kept), row_station, station_radius, region_radius, stations, n_regions, sent, peak, moves
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """All rows in one array; empties the list, so that each part is let go once it is copied."""
    rows = np.empty((sum(len(part) for part in parts), parts[0].shape[1]), parts[0].dtype)
    start = 0
    while parts:
        part = parts.pop(0)
        rows[start : start + len(part)] = part
        start += len(part)
    return rows
