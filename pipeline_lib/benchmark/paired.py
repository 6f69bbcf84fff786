"""Experiments against a baseline on the same test images: paired bootstrap over images and seeds, Holm's correction.

In each resample the images of every category are drawn anew, good and defective apart, the same draw for all
experiments and seeds; with several seeds these are drawn too. A difference of two experiments is taken within the
resample, so what both share cancels. The two-sided p-value inverts the percentile interval: twice the smaller share of
resamples on either side of 0, with one added to both counts (Davison & Hinkley 1997, ch. 4 and 5). Holm 1979, "A simple
sequentially rejective multiple test procedure".
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

    def mean(self, metric: str) -> np.ndarray | None:
        """Mean over categories, float64 (1 + resamples,); None where a category has none."""
        found = self.by_category.get(metric, {})
        if not found or set(found) != set(self.images):
            return None
        mean: np.ndarray = np.mean([found[category] for category in sorted(found)], axis=0)
        return mean


@dataclass(frozen=True)
class Difference:
    """Experiment minus baseline, as shares (0.01 is a point)."""

    value: float
    interval: tuple[float, float] | None  # None for no resamples
    p_value: float | None


def resampled_metrics(
    samples: Iterable[tuple[str, Sequence[ImageSample]]], *, resamples: int, seed: int
) -> ResampledMetrics:
    """Metrics of one run; `samples` gives category -> sample, or one of each client that trains alone (their mean).

    The draw depends on `seed`, the category and its images alone. Raises ValueError when the clients' samples of a
    category do not hold the same images.
    """
    by_category: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in RESAMPLED}
    images: dict[str, tuple[str, ...]] = {}
    for category, found in samples:
        ordered = [in_order(sample) for sample in found]
        images[category] = ordered[0].image_ids
        if any(sample.image_ids != images[category] for sample in ordered):
            raise ValueError(f"the clients were not measured on the same test images of {category}")
        labels = ordered[0].label_index
        rng = stage_rng(seed, "paired bootstrap", category, len(labels))
        drawn = resample_weights(labels, resamples=resamples, rng=rng)
        weights = np.concatenate([np.ones((1, len(labels))), drawn])
        for metric, measure in RESAMPLED.items():
            values = [measure(sample, weights) for sample in ordered]
            if all(value is not None for value in values):
                by_category[metric][category] = np.mean(np.array(values, dtype=np.float64), axis=0)
    return ResampledMetrics(by_category, images)


def paired_difference(
    experiment: Mapping[int, ResampledMetrics],
    baseline: Mapping[int, ResampledMetrics],
    metric: str,
    *,
    resamples: int,
    seed: int,
) -> Difference | None:
    """Difference of the means over categories and over the seeds that both have (seed -> metrics of the run).

    None where they share no seed, were not measured on the same images, or the metric is undefined.
    """
    seeds = sorted(set(experiment) & set(baseline))
    pairs = [(experiment[s], baseline[s]) for s in seeds]
    if not pairs or any(a.images != b.images for a, b in pairs):
        return None
    values = []
    for a, b in pairs:
        first, second = a.mean(metric), b.mean(metric)
        if first is None or second is None:
            return None
        values.append(first - second)
    by_seed = np.array(values)  # (seed, 1 + resamples)
    value = float(by_seed[:, 0].mean())
    if not resamples:
        return Difference(value, None, None)
    differences = _mean_of_drawn_seeds(by_seed[:, 1:], seed=seed)
    if not len(differences):
        return Difference(value, None, None)
    low, high = np.percentile(differences, [2.5, 97.5])
    return Difference(value, (float(low), float(high)), _two_sided(differences))


def value_interval(runs: Mapping[int, ResampledMetrics], metric: str, *, seed: int) -> tuple[float, float] | None:
    """95 % interval of one experiment's mean over categories and seeds (seed -> metrics); None where undefined."""
    values = [own.mean(metric) for own in runs.values()]
    defined = [value[1:] for value in values if value is not None and len(value) > 1]
    if not defined or len(defined) < len(values):
        return None
    drawn = _mean_of_drawn_seeds(np.array(defined), seed=seed)
    if not len(drawn):
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _mean_of_drawn_seeds(by_seed: np.ndarray, *, seed: int) -> np.ndarray:
    """(seed, resample) -> mean over as many seeds drawn with replacement, without what is undefined."""
    n_seeds, resamples = by_seed.shape
    draws = np.ones((resamples, n_seeds)) / n_seeds
    if n_seeds > 1:
        rng = stage_rng(seed, "paired bootstrap", "seeds")
        draws = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples) / n_seeds
    mean: np.ndarray = np.einsum("rs,sr->r", draws, by_seed)
    defined: np.ndarray = mean[~np.isnan(mean)]
    return defined


def _two_sided(differences: np.ndarray) -> float:
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Adjusted p-values of a family of tests; those that are None stay so and are not counted."""
    defined = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(defined):
        largest = max(largest, min(1.0, p * (len(defined) - rank)))
        adjusted[name] = largest
    return adjusted
