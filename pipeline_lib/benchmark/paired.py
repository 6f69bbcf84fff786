"""Metrics of runs in the same resamples of the same test images, from which differences are taken.

In each resample the images of every category, or their groups, are drawn anew, the same draw for all experiments and
seeds. A difference of two experiments is taken within the resample, so what both share cancels; what
is shown by it says `differences`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.metrics.bootstrap import RESAMPLED, ImageSample, in_order, resample_weights


@dataclass(frozen=True)
class ResampledMetrics:
    """Metrics of one run in every resample; number 0 are the images as they are."""

    by_category: Mapping[str, Mapping[str, np.ndarray]]  # metric -> category -> float64 (1 + resamples,)
    images: Mapping[str, tuple[str, ...]]  # category -> image ids, in order
    degrees: Mapping[str, int]  # category -> of freedom: images (groups) of the smaller class, less one

    def mean(self, metric: str) -> np.ndarray | None:
        """Mean over categories, float64 (1 + resamples,); None where a category has none."""
        found = self.by_category.get(metric, {})
        if not found or set(found) != set(self.images):
            return None
        mean: np.ndarray = np.mean([found[category] for category in sorted(found)], axis=0)
        return mean

    def only(self, category: str) -> ResampledMetrics:
        """Those of one category; its mean over categories is then that of the category itself."""
        found = {metric: {category: own[category]} for metric, own in self.by_category.items() if category in own}
        return ResampledMetrics(found, {category: self.images[category]}, {category: self.degrees[category]})


def resampled_metrics(
    samples: Iterable[tuple[str, Sequence[ImageSample]]], *, resamples: int, seed: int
) -> ResampledMetrics:
    """Metrics of one run; `samples` gives category -> sample, or one of each client that trains alone (their mean).

    The draw depends on `seed`, the category and its images alone. Raises ValueError when the clients' samples of a
    category do not hold the same images.
    """
    by_category: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in RESAMPLED}
    images: dict[str, tuple[str, ...]] = {}
    degrees: dict[str, int] = {}
    for category, found in samples:
        ordered = [in_order(sample) for sample in found]
        images[category] = ordered[0].image_ids
        if any(sample.image_ids != images[category] for sample in ordered):
            raise ValueError(f"the clients were not measured on the same test images of {category}")
        labels = ordered[0].label_index
        degrees[category] = min(ordered[0].independent) - 1
        rng = stage_rng(seed, "paired bootstrap", category, len(labels))
        drawn = resample_weights(labels, resamples=resamples, rng=rng, group_index=ordered[0].group_index)
        weights = np.concatenate([np.ones((1, len(labels))), drawn])
        for metric, measure in RESAMPLED.items():
            values = [measure(sample, weights) for sample in ordered]
            if all(value is not None for value in values):
                by_category[metric][category] = np.mean(np.array(values, dtype=np.float64), axis=0)
    return ResampledMetrics(by_category, images, degrees)
