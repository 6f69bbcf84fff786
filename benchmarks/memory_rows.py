"""Ten times the images for the same bank: does memory grow?"""

from __future__ import annotations

import statistics

from benchmarks.children import run_module
from benchmarks.rows import Row

BANK_ROWS = 600


def memory(*, quick: bool) -> list[Row]:
    """Extraction, client coreset, aggregation and scoring of n and of 10 n images, the bank fixed."""
    few = 20 if quick else 70
    repetitions = 1 if quick else 3
    ratios, small, large = [], [], []
    same = True
    for _ in range(repetitions):
        one = run_module("memory_child", str(few), str(BANK_ROWS))
        ten = run_module("memory_child", str(10 * few), str(BANK_ROWS), "--check")
        ratios.append(ten.peak_anonymous_mb / one.peak_anonymous_mb)
        small.append(round(one.peak_anonymous_mb))
        large.append(round(ten.peak_anonymous_mb))
        checked = run_module("memory_child", str(10 * few), str(BANK_ROWS), "--check", "--in-memory")
        same &= ten.answer["bank_sha256"] == checked.answer["bank_sha256"]
    return [
        Row(
            name="memory",
            peer="itself with a tenth of the images",
            ratio_median=round(statistics.median(ratios), 3),
            ratio_min=round(min(ratios), 3),
            repetitions=repetitions,
            equal_results=same,
            wanted=1.3,
            direction="at most",
            work=f"{few} and {10 * few} images of magnetic_tile at 256x256, bank of {BANK_ROWS} rows",
            figures={
                "peak_mb": small,
                "peak_mb_ten_times": large,
                "patches_ten_times": ten.answer["patches"],
                "peak_mb_all_in_memory": round(checked.peak_anonymous_mb),
            },
        )
    ]
