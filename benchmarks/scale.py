"""What a coordinator needs for very many stations: time and memory of merging them in regions.

`python -m benchmarks.scale [--stations 25 100 400 1000] [--rows 10000] [--json FILE]`, on made-up rows of 152
dimensions, each count in a process of its own, one thread. Times are CPU time against the smallest count's, without
the making of the rows.

Prediction from the smallest count, of R regions: time grows with R, memory is
(stations of a region x rows + R x region_rows) x dim x 4 bytes, and what one region's selection needs beside that.

`--coordinator`: what the coordinator does with uploads in its store, all at once and with `aggregation.regions`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.children import run_module


def main() -> None:
    """Run all counts, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--stations", type=int, nargs="+", default=[25, 100, 400, 1000])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--per-region", type=int, default=25)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--coordinator", action="store_true", help="400 stations of 2,000 rows, a bank of 5,000")
    arguments = parser.parse_args()
    if arguments.coordinator:
        compare_at_the_coordinator(arguments.per_region)
        return
    found: list[dict[str, Any]] = []
    for count in arguments.stations:
        options = ["--rows", str(arguments.rows), "--per-region", str(arguments.per_region)]
        outcome = run_module("scale_child", str(count), *options)
        found.append({**outcome.answer, "peak_mb": outcome.peak_anonymous_mb})
    first = found[0]
    print("| stations | received, MB | peak memory, MB | held rows, MB | time | predicted | radius: region + server |")
    print("|---|---|---|---|---|---|---|")
    for row in found:
        ratio = row["regions_s"] / first["regions_s"]
        predicted = row["regions"] / first["regions"]
        print(
            f"| {row['stations']} | {row['received_mb']:.0f} | {row['peak_mb']:.0f} | {row['held_mb']:.0f} | "
            f"{ratio:.1f}x, server {row['server_s'] / first['regions_s']:.1f}x | {predicted:.1f}x | "
            f"{row['region_radius']:.2f} + {row['server_radius']:.2f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def compare_at_the_coordinator(per_region: int, stations: int = 400) -> None:
    """All uploads at once against regions: memory, time, how far an uploaded row lies from the bank, and may lie."""
    print("| merge | received, MB | held rows, MB | peak memory, MB | time | radius | its bound |")
    print("|---|---|---|---|---|---|---|")
    found = {}
    for name, size in (("all at once", 0), (f"regions of {per_region} stations", per_region)):
        found[name] = run_module("coordinator_child", str(stations), "--per-region", str(size))
        row, first = found[name].answer, found["all at once"].answer
        print(
            f"| {name} | {row['received_mb']:.0f} | {row['held_mb']:.0f} | {found[name].peak_anonymous_mb:.0f} | "
            f"{row['merge_s'] / first['merge_s']:.2f}x | {row['radius']:.2f} | {row['radius_bound']:.2f} |"
        )


if __name__ == "__main__":
    main()
