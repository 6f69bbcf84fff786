"""One merge of so many made-up stations in regions; prints one JSON object."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np

from pipeline_lib.hardware import limit_threads
from pipeline_lib.hierarchical_merge import StationRows, merge_in_regions

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

    region_ends: list[float] = []
    start = time.process_time()
    bank = merge_in_regions(
        stations(), stations_per_region=a.per_region, region_rows=a.region_rows, bank_rows=a.bank_rows, seed=0,
        progress=lambda _: region_ends.append(time.process_time() - start - making_s),
    )  # fmt: skip
    whole = time.process_time() - start - making_s
    result = {
        "stations": bank.stations,
        "regions": bank.regions,
        "rows_received": a.stations * a.rows,
        "bank_rows": len(bank.rows),
        "merge_s": whole,
        "regions_s": region_ends[-1],
        "server_s": whole - region_ends[-1],
        "region_radius": bank.region_radius,
        "server_radius": bank.server_radius,
        "peak_rows": bank.peak_rows,
        "held_mb": bank.peak_rows * a.dim * 4 / 2**20,
        "received_mb": a.stations * a.rows * a.dim * 4 / 2**20,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
