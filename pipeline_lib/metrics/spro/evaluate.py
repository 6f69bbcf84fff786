"""The pixel metrics of a category and of its subsets, from two passes over its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.spro.areas import area_under_roc, areas_up_to, curve_of, distinct, lifts
from pipeline_lib.metrics.spro.bootstrap_counts import bootstrap_grids, image_counts
from pipeline_lib.metrics.spro.chance import chance_auc_spro
from pipeline_lib.metrics.spro.defective_images import Collected, collect
from pipeline_lib.metrics.spro.image_counts import ImageCounts
from pipeline_lib.metrics.spro.normal_pixels import NormalCounts, count_normal
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage, PixelEvaluation, PixelMetrics, SubsetKey


def evaluate_pixels(
    images: Sequence[EvaluationImage],
    *,
    fpr_limits: Sequence[float],
    subsets_of: Callable[[EvaluationImage, DefectChannel], Iterable[SubsetKey]] = lambda image, channel: (),
    pixel_auroc: bool = True,
    curve: bool = True,
    grid_scores: int = 0,
) -> PixelEvaluation:
    """Exact AUC-sPRO and pixel AUROC, for all channels and for every subset that `subsets_of` puts a channel in.

    A subset is measured on the good images and the images with one of its channels: the mean is over its channels,
    false positives are pixels that no channel of any subset marks, and the positives of pixel AUROC are the pixels
    that its own channels mark. `grid_scores` above 0 also counts for the bootstrap, on a grid of that many scores over
    all channels and of `SPLIT_GRID_SCORES` for each subset.
    Maps of good images are loaded once, those of defective ones once or (beyond 256 MiB of them) twice; memory is
    bounded by that, one batch and about 50 bytes a marked pixel, whatever the number of subsets.

    Raises ImageError for a map that is not finite or does not have the size of its masks, and for an empty mask.
    """
    collected = collect(images, subsets_of, pixel_auroc=pixel_auroc)
    unmasked = [images[i].image_id for i in sorted(collected.unmasked)]
    if not collected.channels:
        nowhere = np.full(len(images), np.nan)
        return PixelEvaluation({WHOLE: PixelMetrics.undefined(fpr_limits)}, collected.subsets, unmasked, {}, nowhere)
    scores = collected.marked[WHOLE] if pixel_auroc else [channel.top for channel in collected.channels]
    keys = distinct(np.concatenate(scores))
    same = _subsets_with_the_same_channels(collected)
    places = {subset: _places(keys, collected, subset, pixel_auroc) for subset in same if subset != WHOLE}
    grids = bootstrap_grids(keys, collected, list(same), grid_scores)
    grid = np.unique(np.concatenate(list(grids.values())))[::-1] if grids else np.zeros(0, np.int64)
    normal = NormalCounts(keys, places, keys[grid], n_images=len(images))
    count_normal(images, collected, normal)

    by_subset: dict[SubsetKey, PixelMetrics] = {}
    for subset, others in same.items():
        found = _measure(subset, collected, normal, fpr_limits, pixel_auroc=pixel_auroc, curve=curve)
        by_subset |= {other: replace(found, curve=None) for other in others} | {subset: found}
    counts: dict[SubsetKey, ImageCounts] = {}
    for subset, own in grids.items():
        found_counts = image_counts(collected, subset, normal, np.searchsorted(-grid, -own))
        counts |= dict.fromkeys([subset, *same[subset]], found_counts)
    highest = normal.highest
    for position, value in collected.highest_unmarked.items():
        highest[position] = value
    return PixelEvaluation(by_subset, collected.subsets, unmasked, counts, highest)


def _subsets_with_the_same_channels(collected: Collected) -> dict[SubsetKey, list[SubsetKey]]:
    """One subset for each set of channels, WHOLE first, and the others with these channels: counted once."""
    channels: dict[SubsetKey, list[int]] = {}
    for number, channel in enumerate(collected.channels):
        for subset in channel.subsets:
            channels.setdefault(subset, []).append(number)
    first: dict[tuple[int, ...], SubsetKey] = {}
    same: dict[SubsetKey, list[SubsetKey]] = {}
    for subset in sorted(channels, key=lambda subset: (subset != WHOLE, subset)):
        stands_for_it = first.setdefault(tuple(channels[subset]), subset)
        same.setdefault(stands_for_it, []).append(subset)
    return {subset: [other for other in others if other != subset] for subset, others in same.items()}


def _places(keys: np.ndarray, collected: Collected, subset: SubsetKey, pixel_auroc: bool) -> np.ndarray:
    """Where the scores of the subset are among all keys, ascending."""
    tops = [channel.top for channel in collected.channels if subset in channel.subsets]
    scores = distinct(np.concatenate(collected.marked[subset] if pixel_auroc else tops))
    return np.searchsorted(keys, scores).astype(np.int32 if len(keys) < 2**31 else np.int64)


def _measure(
    subset: SubsetKey,
    collected: Collected,
    normal: NormalCounts,
    fpr_limits: Sequence[float],
    *,
    pixel_auroc: bool,
    curve: bool,
) -> PixelMetrics:
    above, at, n_normal = normal.of_subset(subset)
    keys = normal.keys if subset == WHOLE else normal.keys[normal.own[subset].places]
    channels = [channel for channel in collected.channels if subset in channel.subsets]
    steps = lifts(keys, channels, weighted=False)
    areas = areas_up_to(above, at, steps, n_normal, fpr_limits)
    points = curve_of(keys, above, at, steps, n_normal) if curve and subset == WHOLE and n_normal else None
    has_weights = any(channel.weight != 1.0 for channel in channels)
    weighted = dict(areas)
    if has_weights:
        steps = lifts(keys, channels, weighted=True)
        weighted = areas_up_to(above, at, steps, n_normal, fpr_limits)
    return PixelMetrics(
        auc_spro=areas,
        auc_spro_weighted=weighted,
        auc_spro_chance=chance_auc_spro(
            np.array([channel.area_px for channel in channels]),
            np.array([channel.saturation_area_px for channel in channels]),
            fpr_limits,
        ),
        pixel_auroc=area_under_roc(keys, above, at, collected.marked[subset], n_normal) if pixel_auroc else None,
        n_channels=len(channels),
        n_normal_px=n_normal,
        bad_saturation_channels=sum(channel.bad_saturation for channel in channels),
        has_weights=has_weights,
        curve=points,
    )
