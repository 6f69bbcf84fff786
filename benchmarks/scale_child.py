"""One merge of so many made-up stations in regions; prints one JSON object."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator

import numpy as np

from pipeline_lib.configuration.hardware import limit_threads
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.composition import Kept, StationRows, reduce_regions
from pipeline_lib.coreset.kcenter import greedy_coreset_selection

MODES, LATENT = 300, 24


def made_up_station(number: int, rows: int, dim: int) -> StationRows:
    """Rows on a mixture of modes in a space of fewer dimensions; every station has a tenth of the modes."""
    shared = np.random.default_rng(0)
    basis = shared.normal(size=(LATENT, dim)).astype(np.float32) / np.sqrt(np.float32(LATENT))
    centers = shared.normal(size=(MODES, LATENT)).astype(np.float32) * 4
    rng = np.random.default_rng([1, number])
    own = rng.choice(MODES, MODES // 10, replace=False)
    latent = centers[rng.choice(own, rows)] + rng.standard_normal((rows, LATENT), np.float32)
    return StationRows(latent @ basis)


def selected(rows: np.ndarray, target: int, rng: np.random.Generator) -> tuple[Kept, float]:
    """(at most `target` of the rows, covering radius over all of them)."""
    if len(rows) <= target:
        return slice(None), 0.0
    selection = greedy_coreset_selection(rows, target, rng=rng)
    return selection.indices, selection.covering_radius


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stations", type=int)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=152)
    parser.add_argument("--per-region", type=int, default=25)
    parser.add_argument("--region-rows", type=int, default=1_000)
    parser.add_argument("--bank-rows", type=int, default=10_000)
    a = parser.parse_args()
    limit_threads(1)
    making_s = 0.0

    def stations() -> Iterator[StationRows]:
        nonlocal making_s
        for number in range(a.stations):
            start = time.process_time()
            station = made_up_station(number, a.rows, a.dim)
            making_s += time.process_time() - start
            yield station

    def reduce(number: int, rows: np.ndarray, _: np.ndarray) -> tuple[Kept, float]:
        return selected(rows, a.region_rows, stage_rng(0, "region", number))

    source = stations()
    regions = (itertools.chain([first], itertools.islice(source, a.per_region - 1)) for first in source)
    start = time.process_time()
    reduced = reduce_regions(regions, reduce)
    regions_s = time.process_time() - start - making_s
    kept, server_radius = selected(reduced.rows, a.bank_rows, stage_rng(0, "server"))
    bank = reduced.rows[kept]
    whole = time.process_time() - start - making_s
    peak_rows = max(reduced.peak_rows, len(reduced.rows) + len(bank))
    result = {
        "stations": reduced.stations,
        "regions": reduced.regions,
        "rows_received": reduced.rows_sent,
        "bank_rows": len(bank),
        "merge_s": whole,
        "regions_s": regions_s,
        "server_s": whole - regions_s,
        "region_radius": reduced.region_radius,
        "server_radius": server_radius,
        "peak_rows": peak_rows,
        "held_mb": peak_rows * a.dim * 4 / 2**20,
        "received_mb": a.stations * a.rows * a.dim * 4 / 2**20,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
