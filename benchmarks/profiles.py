"""Where the time of a selection and of a search goes, and what extraction computes: `python -m benchmarks.profiles`.

Own functions' shares of the processor time under cProfile, one thread, on the rows' real features. What a function
calls in NumPy and torch counts as its own.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.real_features import Kind, bank, features, images_of
from benchmarks.rows import seconds
from benchmarks.score_rows import CATEGORY, IMAGES, warm_scorer
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.neighbors.exact import ExactSearch
from pipeline_lib.neighbors.halves import widened

SHOWN = 7
OWN = str(Path(__file__).parents[1] / "pipeline_lib")


def main() -> None:
    """Profile each case once, print the largest shares."""
    torch.set_num_threads(1)
    narrow = features("narrow", "magnetic_tile", "train", rows=200_000)
    few = features("narrow", "magnetic_tile", "train", rows=100_000)
    wide = features("wide", "magnetic_tile", "train", rows=50_000)
    score, _ = warm_scorer(quick=False)
    images = images_of(CATEGORY, "test", IMAGES)
    cases: dict[str, Callable[[], object]] = {
        "coreset_1pct": lambda: select(narrow, 2000),
        "coreset_10pct": lambda: select(few, 10_000),
        "coreset_wide": lambda: select(wide, 500),
        "search_152, tiles": tiles_search("narrow"),
        "search_wide, tiles": tiles_search("wide"),
        "score_warm": lambda: [score(path) for path in images],
    }
    for name, work in cases.items():
        work()
        print(name)
        for function, share in shares(work).most_common(SHOWN):
            print(f"  {share:6.1%}  {function}")
    print_limits()
    print_pairs()
    print_widening()


def tiles_search(kind: Kind) -> Callable[[], object]:
    """The search of a row, in a bank that is prepared."""
    search = ExactSearch(bank(kind, "magnetic_tile", rows=20_000, out_of=100_000), threads=1)
    queries = features(kind, "magnetic_tile", "test", rows=8192)
    return lambda: search.search(queries)


def print_pairs() -> None:
    """Of a search by clusters: which share of the rows a query is multiplied with, and how many are left then."""
    kinds: tuple[Kind, ...] = ("narrow", "wide")
    for kind in kinds:
        for category in ("ballscrew", "magnetic_tile"):
            search = ExactSearch(bank(kind, category, rows=20_000, out_of=100_000), threads=1)
            if (clusters := search.clusters) is None:
                return
            queries = features(kind, category, "test", rows=8192)[::8]
            forms = search.forms.of_queries(queries)
            found = search._clustered_candidates(queries, forms)
            assert found is not None
            rows, _, reach = found
            _, to_centers = clusters.nearby(clusters.bounds.left(forms.short), forms.squares)
            may = clusters.may_hold(forms.squares, to_centers, search._reach(reach, forms.error))
            multiplied = (may @ (clusters.ends - clusters.starts)).mean() / len(search.rows)
            print(
                f"{kind} {category}: short form of {search.forms.size} values, {multiplied:.0%} of the rows, "
                f"{len(rows) / len(queries):.0f} left to be measured"
            )


def print_limits() -> None:
    """WideResNet-50-2, 400x400, batch 4: operations before layer 4 and in all; this machine's float32 products."""
    network = torchvision.models.wide_resnet50_2(weights=None).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(4, 3, 400, 400))
    parts = {name: sum(own.values()) for name, own in counter.get_flop_counts().items()}
    late = sum(n for name, n in parts.items() if name in ("ResNet.layer4", "ResNet.fc"))
    print(f"extract: {(parts['ResNet'] - late) / 1e9:.0f} of {parts['ResNet'] / 1e9:.0f} billion operations are needed")
    torch.set_num_threads(os.cpu_count() or 1)
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = min(seconds(lambda: torch.mm(left, right)) for _ in range(20))
    print(f"  float32 product of 2048 x 2048 on all cores: {2 * 2048**3 / best / 1e9:.0f} billion operations a second")


def print_widening() -> None:
    """Features of an image from float16 to float32: NumPy's time beside torch's."""
    halves = np.random.default_rng(0).normal(size=(64, 1536)).astype(np.float16)
    ours = min(seconds(lambda: widened(halves)) for _ in range(50))
    numpys = min(seconds(lambda: halves.astype(np.float32)) for _ in range(50))
    print(f"float16 to float32: NumPy takes {numpys / ours:.0f} times as long as torch")


def select(matrix: np.ndarray, size: int) -> object:
    """One selection on one thread."""
    return greedy_coreset_selection(matrix, size, rng=np.random.default_rng(0), threads=1)


def shares(work: Callable[[], object]) -> Counter[str]:
    """Function of the library -> share of the time, with the time of what it calls elsewhere."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(work)
    found: Counter[str] = Counter()
    entries = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in entries.values())
    for (file, _, function), (_, _, own, _, callers) in entries.items():
        if file.startswith(OWN):
            found[f"{Path(file).stem}.{function}"] += own / total
        else:
            _attribute(found, callers, own, total, entries)
    return found


def _attribute(found: Counter[str], callers: dict, own: float, total: float, entries: dict, depth: int = 0) -> None:
    """Give a foreign function's time to the functions of the library that called it, directly or not."""
    whole = sum(times[2] for times in callers.values()) or 1.0
    for (file, line, function), times in callers.items():
        part = own * times[2] / whole
        if file.startswith(OWN):
            found[f"{Path(file).stem}.{function}"] += part / total
        elif depth < 8:
            _attribute(found, entries[file, line, function][4], part, total, entries, depth + 1)


if __name__ == "__main__":
    main()
