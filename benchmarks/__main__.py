"""`python -m benchmarks --json FILE [--quick] [--only ID ...]`: every comparison, each in a process of its own.

With `--against DIR` rows compare this checkout with another one instead of their peer (benchmarks.against).
FEDPATCH_BFLOAT16=0 in the environment switches products of bfloat16 off in a search; --avx2 has torch, NumPy, OpenBLAS
and FAISS use AVX2 alone on a processor that has more.

A row first checks that results are equal, then times both sides in turn in one process. FAISS's OpenBLAS is older than
NumPy's and does not know recent processors; OPENBLAS_CORETYPE gives both the best kernels that they have in common.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.against import AGAINST, against
from benchmarks.processor import processor, use_avx2_alone

ROWS = {  # id -> module that has a function of that name
    "coreset_1pct": "coreset_rows",
    "coreset_10pct": "coreset_rows",
    "coreset_wide": "coreset_rows",
    "coreset_wide_10pct": "coreset_rows",
    "search_wide": "search_rows",
    "search_152": "search_rows",
    "spro": "metric_rows",
    "extract": "extraction_rows",
    "end_to_end": "end_to_end_rows",
    "memory": "memory_rows",
    "warm": "warm_rows",
    "scale": "scale_rows",
    "autovi_tenth": "autovi_rows",
    "score_cold": "score_rows",
    "score_warm": "score_rows",
}
LARGE = ("scale", "autovi_tenth")  # take a quarter of an hour and more: with --large, or by name


def main() -> int:
    """Run rows, print a table, write JSON. The exit status is 1 when a row failed to run or results differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, help="where the list of rows is written")
    parser.add_argument("--quick", action="store_true", help="reduced sizes, under five minutes in all")
    parser.add_argument("--large", action="store_true", help=f"the long rows alone: {', '.join(LARGE)}")
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), metavar="ID", help=", ".join(ROWS))
    parser.add_argument("--against", type=Path, metavar="DIR", help=f"another checkout; {', '.join(AGAINST)}")
    parser.add_argument("--avx2", action="store_true", help="both sides use AVX2 alone, whatever the processor has")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--row", choices=sorted(ROWS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        _run_here(arguments.row, arguments.against, quick=arguments.quick, threads=arguments.threads)
        return 0
    usual = LARGE if arguments.large else [name for name in ROWS if name not in LARGE]
    names = arguments.only or [name for name in usual if not arguments.against or name in AGAINST]
    if arguments.against and (others := [name for name in names if name not in AGAINST]):
        parser.error(f"--against is for {', '.join(AGAINST)}; not for {', '.join(others)}")
    if arguments.avx2:
        use_avx2_alone()
    if arguments.quick:
        print("floors (wanted) are for full size: at this size a ratio says whether a row runs, not how fast it is")
    rows: list[dict[str, Any]] = []
    failed = False
    print(f"{'id':<18} {'ratio':>9} {'lowest':>9} {'wanted':>14}  equal  peer and work")
    measured_on = processor(avx2_alone=arguments.avx2)
    for name in names:
        start = time.perf_counter()
        found = _run_apart(name, arguments, measured_on["instruction_sets"])
        failed |= found is None
        for row in found or []:
            rows.append({**row, "quick": arguments.quick, "processor": measured_on})
            failed |= not row["equal_results"]
            _print_row(row, quick=arguments.quick)
        print(f"{'':<18} {time.perf_counter() - start:.0f} s in all", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(failed)


def _print_row(row: dict[str, Any], *, quick: bool) -> None:
    wanted = f"{row['direction']} {row['wanted']:g}"
    mark = "" if quick or row["reached"] or not row["equal_results"] else "  (not reached)"
    print(
        f"{row['name']:<18} {row['ratio_median']:>9.3g} {row['ratio_min']:>9.3g} {wanted:>14}  "
        f"{'yes' if row['equal_results'] else 'NO':<5}  {row['peer']}; {row['work']}{mark}"
    )
    print(f"{'':<18} {', '.join(f'{key} {value}' for key, value in row['figures'].items())}", flush=True)


def _run_apart(name: str, arguments: argparse.Namespace, instruction_sets: list[str]) -> list[dict[str, Any]] | None:
    """The rows under an id, from a fresh process; None when it failed."""
    threads = arguments.threads
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    environment.pop("OPENBLAS_CORETYPE", None)
    environment.pop("OPENBLAS_L2_SIZE", None)
    if "avx2" in instruction_sets:
        environment["OPENBLAS_CORETYPE"] = "SkylakeX" if "avx512f" in instruction_sets else "Haswell"
    command = [sys.executable, "-m", "benchmarks", "--row", name, "--threads", str(threads)]
    command += ["--quick"] * arguments.quick
    if arguments.against is not None:
        command += ["--against", str(arguments.against.resolve())]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{name}: failed with exit status {done.returncode}", file=sys.stderr)
        return None
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _run_here(name: str, other: Path | None, *, quick: bool, threads: int) -> None:
    if other is not None:
        print(json.dumps([row.as_dict() for row in against(name, other, quick=quick, threads=threads)]))
        return
    from pipeline_lib.configuration.hardware import limit_threads

    limit_threads(threads)
    function = getattr(importlib.import_module(f"benchmarks.{ROWS[name]}"), name)
    print(json.dumps([row.as_dict() for row in function(quick=quick)]))


if __name__ == "__main__":
    raise SystemExit(main())
