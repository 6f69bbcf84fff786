"""A row's own side in two checkouts of the project, in turns: what a change did to its speed.

Each checkout runs in a process of its own that lives as long as the comparison. Benchmarks come from this checkout,
the library from the other; the answers must be equal to the bit. Where the machine has other work, the processor time
(`cpu_ratio`) says more than the wall time.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Row, paired, seconds

HERE = Path(__file__).parents[1]
SIDES = {  # row -> (module with `own_side`, times faster than the checkout that it is compared with, repetitions)
    "coreset_1pct": ("coreset_rows", 2.2, 3),
    "coreset_10pct": ("coreset_rows", 2.2, 3),
    "coreset_wide": ("coreset_rows", 2.2, 3),
    "coreset_wide_10pct": ("coreset_rows", 1.0, 3),
    "search_wide": ("search_rows", 1.0, 3),
    "search_152": ("search_rows", 1.0, 3),
    "score_cold": ("score_rows", 2.0, 5),
}
AGAINST = (*SIDES, "autovi_tenth")
PROGRAM = (
    "import sys; here, other, name, quick, threads = sys.argv[1:]; sys.path.insert(0, here); import benchmarks; "
    "sys.path.insert(0, other); from benchmarks.against import serve; serve(name, quick == '1', int(threads))"
)


def against(name: str, other: Path, *, quick: bool, threads: int) -> list[Row]:
    """The row's own side here against the same in the checkout `other`."""
    if not (other / "pipeline_lib").is_dir():
        raise SystemExit(f"{other} is no checkout of this project: it has no pipeline_lib")
    if name == "autovi_tenth":  # whole runs, in processes of their own
        from benchmarks.autovi_rows import autovi_tenth_against

        return autovi_tenth_against(other, quick=quick)
    _, wanted, repetitions = SIDES[name]
    with (
        _Side(HERE, name, quick=quick, threads=threads) as own,  # first, since it makes the features if need be
        _Side(other, name, quick=quick, threads=threads) as peer,
    ):
        pairs = paired(own.seconds, peer.seconds, repetitions=repetitions, warm_up=False)
        equal, ratio = own.answer == peer.answer, statistics.median(peer.cpu_s) / statistics.median(own.cpu_s)
    return [
        pairs.row(
            name,
            f"the checkout {other}",
            wanted=wanted,
            equal_results=equal,
            work=f"the work of {name}",
            cpu_ratio=round(ratio, 2),
        )
    ]


class _Side:
    """A process that has done the work once, and does it again when asked."""

    def __init__(self, checkout: Path, name: str, *, quick: bool, threads: int) -> None:
        arguments = [str(HERE), str(checkout.resolve()), name, str(int(quick)), str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.cpu_s: list[float] = []
        self.answer = self._line()

    def __enter__(self) -> _Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # the end of its input ends it

    def seconds(self) -> float:
        """Of the work, once."""
        assert self.process.stdin is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        wall, cpu = map(float, self._line().split())
        self.cpu_s.append(cpu)
        return wall

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args[-5:])}: ended with {self.process.wait()}")  # type: ignore[index]
        return line.strip()


def serve(name: str, quick: bool, threads: int) -> None:
    """Print a digest of the answer, then for each line that comes the seconds of doing it again."""
    from pipeline_lib.configuration.hardware import limit_threads

    limit_threads(threads)
    own_side: Callable[..., Callable[[], object]] = importlib.import_module(f"benchmarks.{SIDES[name][0]}").own_side
    work = own_side(name, quick=quick)
    print(hashlib.sha256(work().tobytes()).hexdigest(), flush=True)  # type: ignore[attr-defined]
    for _ in sys.stdin:
        start = _processor_time()
        print(seconds(work), _processor_time() - start, flush=True)


def _processor_time() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])
