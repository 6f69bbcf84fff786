"""Speed of exact nearest-neighbour search against faiss.IndexFlatL2.

    python benchmarks/bench_search.py BANK.npy QUERIES.npy [--queries 8192] [--threads 2] [--neighbors 1]

Both are float32 matrices (rows, dim): a memory bank, and test patches in the order of their images. The largest
difference between the two sides' distances is printed; FAISS's are the less exact ones. Which kernels either side's
BLAS picked is printed too, since it decides much: FAISS's wheel brings an OpenBLAS of its own, older than NumPy's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from threadpoolctl import threadpool_info

from pipeline_lib.nearest_neighbors import ExactSearch


def fastest(function: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Least wall time of `repeat` calls, and the last result."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - began)
    return min(times), result


def main() -> None:
    """Time both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank")
    parser.add_argument("queries")
    parser.add_argument("--queries", dest="count", type=int, default=8192, help="the first so many queries alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--neighbors", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    bank = np.array(np.load(arguments.bank, mmap_mode="r"), dtype=np.float32)
    queries = np.array(np.load(arguments.queries, mmap_mode="r")[: arguments.count], dtype=np.float32)

    build, search = fastest(lambda: ExactSearch(bank, threads=arguments.threads), 1)
    own, (distances, _) = fastest(lambda: search.search(queries, arguments.neighbors), arguments.repeat)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank)
    peer, (squares, _) = fastest(lambda: index.search(queries, arguments.neighbors), arguments.repeat)
    print(
        json.dumps(
            {
                "bank": bank.shape,
                "queries": len(queries),
                "neighbors": arguments.neighbors,
                "threads": arguments.threads,
                "short_form": search.columns.shape[1] - 1,
                "build_seconds": round(build, 3),
                "seconds": round(own, 3),
                "faiss_flat_seconds": round(peer, 3),
                "times_faster": round(peer / own, 2),
                "largest_difference": float(np.abs(np.sqrt(np.maximum(squares, 0)) - distances).max()),
                "blas": [f"{lib['filepath'].split('/')[-2]}: {lib.get('architecture')}" for lib in threadpool_info()
                         if lib["user_api"] == "blas"],
            },
            indent=1,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
