"""`python -m benchmarks.device_work [--against DIR]`: how much work selection and search on a device are, counted.

Run on torch's CPU device. For each pick or query: operations that a GPU would be told to do (`launches`), waits for it,
and what it has to compute as a share of all pairs of a row and a pick, or a query: products of rows, and pairs that are
measured in float64 by differences. `cpu_s` is its time on one thread here, which says little about a GPU, `cpu_way_s`
that of the CPU's own way. With DIR the same of another checkout, which must answer alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_check import made_up_features
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.on_device import select_on_device
from pipeline_lib.neighbors import on_device
from pipeline_lib.neighbors.exact import ExactSearch

HERE = Path(__file__).parents[1]
PROGRAM = (
    "import sys; here, other = sys.argv[1:]; sys.path.insert(0, here); import benchmarks; "
    "sys.path.insert(0, other); from benchmarks.device_work import count; count()"
)
SELECTIONS = ((20_000, 384, 200), (10_000, 384, 1_000))
SEARCHES = ((1_024, 10_000, 384),)


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations while it is entered: `launches`, `waits`, `product DTYPE` and `measured` (pairs of rows)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Work:
        self._to_host: Callable[..., list[np.ndarray]] | None = getattr(on_device, "to_host", None)
        if self._to_host is not None:
            on_device.to_host = self._counted_to_host
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if self._to_host is not None:
            on_device.to_host = self._to_host

    def _counted_to_host(self, *tensors: torch.Tensor) -> list[np.ndarray]:
        assert self._to_host is not None
        self.counts["waits"] += len(tensors)
        return self._to_host(*tensors)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.counts["launches"] += 1
        match function.overloadpacket.__name__:
            case "mm" | "addmm" | "matmul":
                left, right = args[-2:]
                self.counts[f"product {left.dtype}".replace("torch.", "")] += left.shape[0] * right.shape[1]
            case "_cdist_forward":
                self.counts["measured"] += result.numel()
            case "sub" if result.dtype == torch.float64 and result.ndim >= 2 and getattr(args[1], "ndim", 0) >= 2:
                self.counts["measured"] += result.numel() // result.shape[-1]
            case "_local_scalar_dense" | "nonzero" | "item" | "is_nonzero":
                self.counts["waits"] += 1
        return result


def main() -> None:
    """Print a table, here and there in turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device_work", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout")
    other = parser.parse_args().against
    checkouts = {"here": HERE} | ({} if other is None else {"there": other.resolve()})
    results = {
        name: json.loads(
            subprocess.run(
                [sys.executable, "-P", "-c", PROGRAM, str(HERE), str(path)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).stdout
        )
        for name, path in checkouts.items()
    }
    for work, (_, digest) in results["here"].items():
        for name, found in results.items():
            figures, answer = found[work]
            print(f"{work:<36} {name:<6} {'' if answer == digest else 'ANOTHER ANSWER '}{figures}")


def count() -> None:
    """Print what each piece of work took, and a digest of its answer, as JSON."""
    torch.set_num_threads(1)
    device, result = torch.device("cpu"), {}
    for rows, dim, size in SELECTIONS:
        features = made_up_features(rows, dim, seed=0, device=device)
        with Work() as work:
            start = time.process_time()
            picks = select_on_device(features, size, device=device, rng=np.random.default_rng(0)).indices
            seconds = time.process_time() - start
        start = time.process_time()
        greedy_coreset_selection(features, size, rng=np.random.default_rng(0), threads=1)
        figures = _figures(work, rows, size, seconds, time.process_time() - start)
        result[f"{size:,} of {rows:,} x {dim:,}"] = figures, _digest(picks)
    for queries, rows, dim in SEARCHES:
        bank, asked = (made_up_features(n, dim, seed=seed, device=device) for n, seed in ((rows, 0), (queries, 1)))
        search, cpu_search = on_device.DeviceSearch(bank, device), ExactSearch(bank, threads=1)
        with Work() as work:
            start = time.process_time()
            found = search.search(asked, 1)[1]
            seconds = time.process_time() - start
        start = time.process_time()
        cpu_search.search(asked, 1)
        figures = _figures(work, rows, queries, seconds, time.process_time() - start)
        result[f"{queries:,} in {rows:,} x {dim:,}"] = figures, _digest(found)
    print(json.dumps(result))


def _figures(work: Work, rows: int, asked: int, seconds: float, cpu_way: float) -> dict[str, float]:
    """Launches and waits for each pick or query, the rest for each pair of it and a row."""
    shares = {
        name: round(value / (asked if name in ("launches", "waits") else rows * asked), 4)
        for name, value in sorted(work.counts.items())
    }
    return {**shares, "cpu_s": round(seconds, 2), "cpu_way_s": round(cpu_way, 2)}


def _digest(answer: np.ndarray) -> str:
    return hashlib.sha256(answer.astype(np.int64).tobytes()).hexdigest()


if __name__ == "__main__":
    main()
