"""Greedy k-center selection against anomalib's loop over all rows for every pick."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import peers
from benchmarks.checks import replay_is_exact
from benchmarks.real_features import Kind, features
from benchmarks.rows import Row, paired, seconds, spread
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import coreset_size
from pipeline_lib.neighbors.bfloat16_products import has_fast_bfloat16

FEWEST_PICKS, MOST_PICKS = 20, 160
STEADY = 0.2  # of the peer's times: (largest - smallest) / median


class Case(NamedTuple):
    """`share` of `rows` is selected; `wanted` where the processor multiplies bfloat16, and elsewhere."""

    kind: Kind
    rows: int
    quick_rows: int
    share: float
    wanted: tuple[float, float]


CASES = {
    "coreset_1pct": Case("narrow", 200_000, 50_000, 0.01, (100, 40)),
    "coreset_10pct": Case("narrow", 100_000, 20_000, 0.1, (100, 120)),
    "coreset_wide": Case("wide", 50_000, 20_000, 0.01, (50, 40)),
    "coreset_wide_10pct": Case("wide", 50_000, 5_000, 0.1, (60, 60)),
}


def coreset_1pct(*, quick: bool) -> list[Row]:
    """1 % of 200,000 x 152."""
    return _rows("coreset_1pct", quick=quick)


def coreset_10pct(*, quick: bool) -> list[Row]:
    """10 % of 100,000 x 152."""
    return _rows("coreset_10pct", quick=quick)


def coreset_wide(*, quick: bool) -> list[Row]:
    """1 % of 50,000 x 1,536, without projection."""
    return _rows("coreset_wide", quick=quick)


def coreset_wide_10pct(*, quick: bool) -> list[Row]:
    """10 % of 50,000 x 1,536, without projection."""
    return _rows("coreset_wide_10pct", quick=quick)


def own_side(name: str, *, quick: bool) -> Callable[[], np.ndarray]:
    """The row's selection, ready to be timed; its picks."""
    case = CASES[name]
    matrix = features(case.kind, "magnetic_tile", "train", rows=case.quick_rows if quick else case.rows)
    size = coreset_size(case.share, len(matrix))
    return lambda: greedy_coreset_selection(matrix, size, rng=np.random.default_rng(0)).indices


def _rows(name: str, *, quick: bool) -> list[Row]:
    case = CASES[name]
    matrix = features(case.kind, "magnetic_tile", "train", rows=case.quick_rows if quick else case.rows)
    size = coreset_size(case.share, len(matrix))
    selection = greedy_coreset_selection(matrix, size, rng=np.random.default_rng(0))
    equal, smallest = replay_is_exact(matrix, selection.indices)
    embedding = torch.from_numpy(matrix)
    result = []
    for projected in (False, True):
        if projected and case.kind == "wide":
            break  # asked for without projection
        timed = steady_picks(peers.project(embedding) if projected else embedding, size)
        pairs = paired(
            lambda: seconds(lambda: greedy_coreset_selection(matrix, size, rng=np.random.default_rng(0))),
            lambda: peer_seconds(embedding, size, timed, projected=projected),  # noqa: B023, called in this turn
            repetitions=3 if quick else 5,
        )
        result.append(
            pairs.row(
                name,
                f"{peers.ANOMALIB} KCenterGreedy, {'as shipped' if projected else 'without projection'}",
                wanted=case.wanted[0 if has_fast_bfloat16() else 1],
                equal_results=equal,
                work=f"{size} of {matrix.shape[0]} x {matrix.shape[1]} ({case.kind} features of magnetic_tile)",
                peer_timed_picks=timed,
                smallest_share_of_maximum=smallest,
                covering_radius=selection.covering_radius,
            )
        )
    return result


def steady_picks(embedding: torch.Tensor, size: int) -> int:
    """How many picks of the peer's loop are timed: so many that three times differ by less than STEADY, or the most."""
    picks = min(size, FEWEST_PICKS)
    while picks < min(size, MOST_PICKS):
        if spread([loop_seconds(embedding, picks) for _ in range(3)]) < STEADY:
            break
        picks = min(2 * picks, size, MOST_PICKS)
    return picks


def peer_seconds(embedding: torch.Tensor, size: int, timed: int, *, projected: bool) -> float:
    """The peer's time for `size` picks, from its first `timed`: each costs the same. The projection counts once."""
    start = time.perf_counter()
    if projected:
        embedding = peers.project(embedding)
    projection = time.perf_counter() - start
    return projection + loop_seconds(embedding, timed) * (size - 1) / (timed - 1)


def loop_seconds(embedding: torch.Tensor, picks: int) -> float:
    """Of so many picks from rows that are projected already, or not to be."""
    selector = peers.k_center_greedy(embedding, picks, projected=False)
    return seconds(lambda: peers.select(selector))
