"""The figures: from the counts of normal pixels at each key to areas and curves."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from pipeline_lib.metrics.spro.defective_images import MarkedChannel
from pipeline_lib.metrics.spro.records import SproCurve

CHUNK_KEYS = 2**18
CURVE_POINTS = 1000
CURVE_CELLS = (
    2**19
)  # beyond twice as many scores, one in each cell of sPRO is looked at: the area is off by 2e-6 at most


def lifts(keys: np.ndarray, channels: Sequence[MarkedChannel], *, weighted: bool) -> np.ndarray:
    """How much each key lifts the mean sPRO, float64 (key,). All 0 where the weights add up to 0."""
    steps = np.zeros(len(keys))
    weights = np.array([channel.weight if weighted else 1.0 for channel in channels])
    if not weights.sum() > 0:
        return steps
    each = weights / weights.sum() / [channel.saturation_area_px for channel in channels]
    for channel, step in zip(channels, each, strict=True):
        np.add.at(steps, np.searchsorted(keys, channel.top), step)
    return steps


def areas_up_to(
    above: np.ndarray, at: np.ndarray, steps: np.ndarray, n_normal: int, limits: Sequence[float]
) -> dict[float, float | None]:
    """The formula of the package's docstring, divided by the limit; None without normal pixels or without weight."""
    if not n_normal or not steps.any():
        return dict.fromkeys(limits)
    areas = dict.fromkeys(limits, 0.0)
    for chunk in key_chunks(len(steps)):
        low = above[chunk] / n_normal
        high = low + at[chunk] / n_normal
        middle = (low + high) / 2
        for limit in limits:
            share = limit - middle
            share[high > limit] = 0.0
            cut = np.flatnonzero((low < limit) & (high > limit))
            share[cut] = (limit - low[cut]) ** 2 / (2 * (high[cut] - low[cut]))
            areas[limit] += float(steps[chunk] @ share) / limit
    return dict(areas)


def area_under_roc(
    keys: np.ndarray, above: np.ndarray, at: np.ndarray, marked: Sequence[np.ndarray], n_normal: int
) -> float | None:
    """Probability that a marked pixel scores over a normal one, ties counting half."""
    if not n_normal:
        return None
    scores = np.concatenate(marked)
    scores.sort()
    pairs = 0.0
    counted = 0
    for chunk in key_chunks(len(keys)):
        n_up_to = np.searchsorted(scores, keys[chunk], side="right")
        lower = n_normal - above[chunk].astype(np.float64) - at[chunk] / 2
        pairs += float(np.diff(n_up_to, prepend=counted) @ lower)
        counted = int(n_up_to[-1])
    return pairs / (len(scores) * n_normal)


def key_chunks(length: int) -> list[slice]:
    """Keys are worked on in pieces, so that temporary arrays stay small."""
    return [slice(start, min(start + CHUNK_KEYS, length)) for start in range(0, length, CHUNK_KEYS)]


def distinct(scores: np.ndarray) -> np.ndarray:
    """The distinct values, ascending; `scores` is sorted in place (several times faster than np.unique)."""
    scores.sort()
    distinct: np.ndarray = scores[np.concatenate([[True], scores[1:] != scores[:-1]])]
    return distinct


def curve_of(keys: np.ndarray, above: np.ndarray, at: np.ndarray, steps: np.ndarray, n_normal: int) -> SproCurve:
    """The curve, thinned to about CURVE_POINTS points."""
    lifting = np.flatnonzero(steps)[::-1]
    total = np.cumsum(steps[lifting])
    if len(lifting) > 2 * CURVE_CELLS:
        chosen = np.diff(np.floor(total * CURVE_CELLS), prepend=-1) > 0
        chosen[-1] = True
        lifting, total = lifting[chosen], total[chosen]
    fpr, spro, threshold = (np.empty(2 * len(lifting) + 2) for _ in range(3))
    low = above[lifting] / n_normal
    fpr[1:-1:2], fpr[2:-1:2] = low, (above[lifting] + at[lifting]) / n_normal
    spro[1:-1:2], spro[2:-1:2] = total - steps[lifting], total
    threshold[1:-1:2], threshold[2:-1:2] = np.nextafter(keys[lifting], np.float32(np.inf)), keys[lifting]
    fpr[0], spro[0], threshold[0] = 0.0, 0.0, np.nan
    fpr[-1], spro[-1], threshold[-1] = 1.0, total[-1], np.nan
    kept = thin_curve(fpr, spro, points=CURVE_POINTS)
    return SproCurve(fpr[kept], spro[kept], threshold[kept])


def thin_curve(x: np.ndarray, y: np.ndarray, *, points: int) -> np.ndarray:
    """Indices (ascending) of at most `points` points that keep the curve, its area also over short ranges of x.

    x, y: float64 (point,), x ascending and y monotone. The stretch that may change the area most, relative to the
    range of x up to its end, is split at the point farthest from its chord (as Douglas and Peucker 1973 do), until
    there are enough points or nothing is left to split.
    """
    kept = [0, len(x) - 1]
    heap: list[tuple[float, int, int, int]] = []

    def push(start: int, end: int) -> None:
        run = x[end] - x[start]
        if end - start < 2 or run <= 0:
            return
        inner = slice(start + 1, end)
        off = np.abs(y[inner] - y[start] - (y[end] - y[start]) * ((x[inner] - x[start]) / run))
        farthest = int(off.argmax())
        if off[farthest] > 1e-12:
            heapq.heappush(heap, (-float(off[farthest] * run / x[end]), start, end, start + 1 + farthest))

    push(0, len(x) - 1)
    while heap and len(kept) < points:
        _, start, end, split = heapq.heappop(heap)
        kept.append(split)
        push(start, split)
        push(split, end)
    return np.unique(kept)
