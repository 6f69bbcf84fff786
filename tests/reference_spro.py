"""Slow, obvious AUC-sPRO and pixel AUROC: one pass over the pixels for every distinct threshold, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline_lib.dataset.ground_truth import DefectChannel

Selector = Callable[[int, DefectChannel], bool]


def reference_curve(
    maps: Sequence[np.ndarray],
    channels: Sequence[list[DefectChannel]],
    *,
    select: Selector = lambda image, channel: True,
    weighted: bool = False,
) -> tuple[np.ndarray, np.ndarray] | None:
    """(false positive rate, mean sPRO) at every distinct score from high to low, from (0, 0)."""
    normal, regions, weights = [], [], []
    for image, (score_map, own) in enumerate(zip(maps, channels, strict=True)):
        chosen = [channel for channel in own if select(image, channel)]
        if own and not chosen:
            continue
        marked = np.zeros(score_map.shape, bool)
        for channel in own:
            marked |= channel.mask
        normal.append(score_map[~marked].astype(np.float64))
        for channel in chosen:
            regions.append((score_map[channel.mask].astype(np.float64), channel.saturation_area_px))
            weights.append(channel.weight if weighted else 1.0)
    if not regions or not sum(len(scores) for scores in normal):
        return None
    all_normal = np.concatenate(normal)
    thresholds = np.unique(np.concatenate([all_normal, *(scores for scores, _ in regions)]))[::-1]
    fpr, spro = [0.0], [0.0]
    for threshold in thresholds:
        fpr.append(float(np.mean(all_normal >= threshold)))
        overlaps = [min(float(np.sum(scores >= threshold)) / area, 1.0) for scores, area in regions]
        spro.append(float(np.average(overlaps, weights=weights)))
    return np.array(fpr), np.array(spro)


def reference_area(curve: tuple[np.ndarray, np.ndarray] | None, limit: float) -> float | None:
    """Trapezoids up to `limit`, the last one cut by linear interpolation; divided by the limit."""
    if curve is None:
        return None
    area = 0.0
    for x0, x1, y0, y1 in zip(curve[0], curve[0][1:], curve[1], curve[1][1:], strict=False):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + at_limit) / 2
    return area / limit


def reference_pixel_auroc(
    maps: Sequence[np.ndarray],
    channels: Sequence[list[DefectChannel]],
    *,
    select: Selector = lambda image, channel: True,
) -> float | None:
    """Share of (marked, normal) pixel pairs in which the marked one scores higher, ties half."""
    normal: list[float] = []
    positive: list[float] = []
    for image, (score_map, own) in enumerate(zip(maps, channels, strict=True)):
        if own and not any(select(image, channel) for channel in own):
            continue
        for place in np.ndindex(score_map.shape):
            here = [channel for channel in own if channel.mask[place]]
            if not here:
                normal.append(float(score_map[place]))
            elif any(select(image, channel) for channel in here):
                positive.append(float(score_map[place]))
    if not normal or not positive:
        return None
    differences = np.subtract.outer(np.array(positive), np.array(normal))
    return float(np.mean((np.sign(differences) + 1) / 2))
