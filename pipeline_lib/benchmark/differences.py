"""What is shown of a difference between two experiments: drawn images and drawn seeds, each with its own variance.

Each seed of an experiment is one draw of starts and partitions; the difference is the mean over the seeds that both
have. Its variance is that over draws of the images, seeds as they are (bootstrap), and that between seeds on the
same images, divided by the number of seeds S::

    v = v_images + s^2 / S

The two have unequal degrees of freedom: S - 1 for the seeds, for images one less than those of the smaller class. The
quantile is the mean of the two Student quantiles weighted by the variances (Cochran and Cox 1957, Experimental
Designs, section 4.14), which keeps a test at or below its level; Welch and Satterthwaite's degrees of freedom do not
where S is 2 or 3 and seeds matter most. One seed has no variance between seeds: nothing is tested.
Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_lib.benchmark.paired import ResampledMetrics
from pipeline_lib.metrics.bootstrap import percentile_interval

LEVEL = 0.05
ONE_SEED = "one seed: not tested"
NO_RESAMPLES = "no resamples: not tested"
_SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Component:
    """A part of the variance of a difference, and the degrees of freedom that it is known with."""

    variance: float
    degrees: float


@dataclass(frozen=True)
class Difference:
    """Experiment minus baseline, as shares (0.01 is a point)."""

    value: float
    images_interval: tuple[float, float] | None = None  # over draws of images alone, the seeds as they are
    images_p_value: float | None = None
    interval: tuple[float, float] | None = None  # over draws of images and seeds; None where nothing is tested
    p_value: float | None = None
    not_tested: str = ""  # why there is no p-value


def paired_difference(
    experiment: Mapping[int, ResampledMetrics], baseline: Mapping[int, ResampledMetrics], metric: str
) -> Difference | None:
    """Difference of the means over categories and over the seeds that both have (seed -> metrics of the run).

    None where they share no seed, were not measured on the same images, or the metric is undefined.
    """
    by_category = _differences(experiment, baseline, metric)
    if by_category is None:
        return None
    by_seed = np.mean(list(by_category.values()), axis=0)  # (seed, 1 + resamples)
    n_seeds, value = len(by_seed), float(by_seed[:, 0].mean())
    over_images = percentile_interval(by_seed[:, 1:].mean(axis=0))
    images = _image_component(by_category, next(iter(experiment.values())).degrees)
    if over_images is None:
        return Difference(value, not_tested=NO_RESAMPLES)
    if images is None:
        return Difference(value, over_images, not_tested="one image of a class: not tested")
    _, images_p = _interval_and_p(value, [images])
    if n_seeds == 1:
        return Difference(value, over_images, images_p, not_tested=ONE_SEED)
    seeds = Component(float(by_seed[:, 0].var(ddof=1)) / n_seeds, n_seeds - 1)
    interval, p_value = _interval_and_p(value, [images, seeds])
    untested = "" if interval else "no image and no seed makes a difference: not tested"
    return Difference(value, over_images, images_p, interval, p_value, untested)


def _interval_and_p(value: float, components: Sequence[Component]) -> tuple[tuple[float, float] | None, float | None]:
    """None for both where something differs and the variance is 0."""
    error = math.sqrt(sum(one.variance for one in components))
    if not error:
        return (None, None) if value else ((0.0, 0.0), 1.0)
    half = quantile(components) * error
    return (value - half, value + half), two_sided_p(abs(value) / error, components)


def _differences(
    experiment: Mapping[int, ResampledMetrics], baseline: Mapping[int, ResampledMetrics], metric: str
) -> dict[str, np.ndarray] | None:
    """Category -> difference, float64 (seed, 1 + resamples); None where `paired_difference` has none."""
    pairs = [(experiment[seed], baseline[seed]) for seed in sorted(set(experiment) & set(baseline))]
    if not pairs or any(a.images != b.images for a, b in pairs):
        return None
    if any(one.mean(metric) is None for pair in pairs for one in pair):
        return None
    return {
        category: np.array([a.by_category[metric][category] - b.by_category[metric][category] for a, b in pairs])
        for category in pairs[0][0].images
    }


def image_component(
    experiment: Mapping[int, ResampledMetrics], baseline: Mapping[int, ResampledMetrics], metric: str
) -> Component | None:
    """Variance of `paired_difference` over draws of images; None without resamples, and for one image of a class."""
    by_category = _differences(experiment, baseline, metric)
    return None if by_category is None else _image_component(by_category, next(iter(experiment.values())).degrees)


def _image_component(by_category: Mapping[str, np.ndarray], degrees: Mapping[str, int]) -> Component | None:
    """Categories are drawn independently. A bootstrap over n images comes out too small by (n - 1) / n."""
    n = len(by_category)
    parts = []
    for category, values in by_category.items():
        drawn = values[:, 1:].mean(axis=0)
        drawn = drawn[~np.isnan(drawn)]
        known = min(degrees[category], len(drawn) - 1)
        if known < 1:
            return None
        parts.append(Component(float(drawn.var(ddof=1)) * (1 + 1 / degrees[category]) / n**2, known))
    total = sum(part.variance for part in parts)
    if not total:
        return Component(0.0, min(part.degrees for part in parts))
    return Component(total, total**2 / sum(part.variance**2 / part.degrees for part in parts))


def quantile(components: Sequence[Component], level: float = LEVEL) -> float:
    """Of |difference| / standard error, exceeded with probability `level` or less where there is no difference."""
    from scipy import special  # slow to import, and few commands come here

    return weighted_quantile(components, lambda degrees: float(special.stdtrit(degrees, 1 - level / 2)))


def weighted_quantile(components: Sequence[Component], quantile_of: Callable[[float], float]) -> float:
    """The mean of the components' quantiles, each by its degrees of freedom, weighted by their variances."""
    total = sum(one.variance for one in components)
    return sum(one.variance * quantile_of(one.degrees) for one in components) / total


def two_sided_p(statistic: float, components: Sequence[Component]) -> float:
    """The level at which `statistic` is the quantile, by bisection; at least 1e-12."""
    low, high = math.log(_SMALLEST_P), 0.0
    for _ in range(50):
        middle = (low + high) / 2
        if quantile(components, math.exp(middle)) > statistic:
            low = middle
        else:
            high = middle
    return math.exp(high)


def value_interval(
    intervals: Sequence[tuple[float, float] | None], values: Sequence[float | None]
) -> tuple[float, float] | None:
    """95 % interval of a mean over seeds from each seed's own interval over images; with one seed that interval.

    The images are the same for all seeds, so that the mean distance to an end is that of the images; it adds up in
    squares with that of the seeds, Student's (Zou and Donner 2008). None where a seed has no value or no interval.
    """
    found = [(v, i) for v, i in zip(values, intervals, strict=True) if v is not None and i is not None]
    if not found or len(found) < len(values):
        return None
    own = np.array([value for value, _ in found])
    ends = np.array([interval for _, interval in found])
    mean, of_seeds = float(own.mean()), 0.0
    if len(own) > 1:
        seeds = Component(float(own.var(ddof=1)) / len(own), len(own) - 1)
        of_seeds = quantile([seeds]) * math.sqrt(seeds.variance) if seeds.variance else 0.0
    below, above = float((own - ends[:, 0]).mean()), float((ends[:, 1] - own).mean())
    return max(0.0, mean - math.hypot(below, of_seeds)), min(1.0, mean + math.hypot(above, of_seeds))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Adjusted p-values of a family of tests; those that are None stay so and are not counted."""
    defined = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(defined):
        largest = max(largest, min(1.0, p * (len(defined) - rank)))
        adjusted[name] = largest
    return adjusted
