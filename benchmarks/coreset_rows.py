"""Greedy k-center selection against anomalib's loop over all rows for every pick."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from benchmarks import peers
from benchmarks.checks import replay_is_exact
from benchmarks.real_features import Kind, features
from benchmarks.rows import Row, paired, seconds
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import coreset_size

TIMED_PICKS = 20


def coreset_1pct(*, quick: bool) -> list[Row]:
    """1 % of 200,000 x 152."""
    return _rows("coreset_1pct", "narrow", rows=50_000 if quick else 200_000, share=0.01, wanted=100, quick=quick)


def coreset_10pct(*, quick: bool) -> list[Row]:
    """10 % of 100,000 x 152."""
    return _rows("coreset_10pct", "narrow", rows=20_000 if quick else 100_000, share=0.1, wanted=100, quick=quick)


def coreset_wide(*, quick: bool) -> list[Row]:
    """1 % of 50,000 x 1,536, without projection."""
    return _rows("coreset_wide", "wide", rows=20_000 if quick else 50_000, share=0.01, wanted=50, quick=quick)


def _rows(name: str, kind: Kind, *, rows: int, share: float, wanted: float, quick: bool) -> list[Row]:
    matrix = features(kind, "magnetic_tile", "train", rows=rows)
    size = coreset_size(share, len(matrix))
    selection = greedy_coreset_selection(matrix, size, rng=np.random.default_rng(0))
    equal, smallest = replay_is_exact(matrix, selection.indices)
    embedding = torch.from_numpy(matrix)
    timed = min(size, TIMED_PICKS if not quick else TIMED_PICKS // 2)
    repetitions = 3 if quick else 5

    result = []
    for projected in (False, True):
        if projected and kind == "wide":
            break  # asked for without projection
        pairs = paired(
            lambda: seconds(lambda: greedy_coreset_selection(matrix, size, rng=np.random.default_rng(0))),
            lambda: peer_seconds(embedding, size, timed, projected=projected),  # noqa: B023, called in this turn
            repetitions=repetitions,
        )
        result.append(
            pairs.row(
                name,
                f"{peers.ANOMALIB} KCenterGreedy, {'as shipped' if projected else 'without projection'}",
                wanted=wanted,
                equal_results=equal,
                work=f"{size} of {matrix.shape[0]} x {matrix.shape[1]} ({kind} features of magnetic_tile)",
                peer_timed_picks=timed,
                smallest_share_of_maximum=smallest,
                covering_radius=selection.covering_radius,
                peak_spread=round(max(pairs.own) / statistics.median(pairs.own), 2),
            )
        )
    return result


def peer_seconds(embedding: torch.Tensor, size: int, timed: int, *, projected: bool) -> float:
    """The peer's time for `size` picks, from its first `timed`: each costs the same. The projection counts once."""
    start = time.perf_counter()
    if projected:
        model = peers.k_center_greedy(embedding, timed, projected=True).model
        model.fit(embedding)
        model.transform(embedding)
    projection = time.perf_counter() - start
    selector = peers.k_center_greedy(embedding, timed, projected=projected)
    start = time.perf_counter()
    peers.select(selector)
    loop = max(time.perf_counter() - start - projection, 1e-9)
    return projection + loop * (size - 1) / (timed - 1)
