"""Intervals of an AUROC: DeLong's and Obuchowski's variance the slow way, at 1, and how often they cover.

pytest -m slow -s tests/pipeline_lib/metrics/test_auroc_interval.py     prints the figures of docs/method.md
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from pipeline_lib.metrics.auroc_interval import auroc_interval
from pipeline_lib.metrics.bootstrap import ImageSample, percentile_interval, resample_weights, resampled_image_auroc
from pipeline_lib.metrics.intervals import newcombe_interval


def slow_variance(good: np.ndarray, bad: np.ndarray, of_good: np.ndarray, of_bad: np.ndarray) -> tuple[float, float]:
    """(AUROC, its variance): pair by pair, Obuchowski 1997, equations 4 to 7; DeLong's where each stands alone."""
    wins = np.array([[1.0 if b > g else 0.5 if b == g else 0.0 for g in good] for b in bad])
    area, m, n = wins.mean(), len(bad), len(good)
    groups = sorted({*of_good.tolist(), *of_bad.tolist()})
    bad_sum = {k: sum(wins[i].mean() - area for i in range(m) if of_bad[i] == k) for k in groups}
    good_sum = {k: sum(wins[:, j].mean() - area for j in range(n) if of_good[j] == k) for k in groups}
    with_bad, with_good = len(set(of_bad.tolist())), len(set(of_good.tolist()))
    s10 = with_bad / ((with_bad - 1) * m) * sum(v**2 for v in bad_sum.values())
    s01 = with_good / ((with_good - 1) * n) * sum(v**2 for v in good_sum.values())
    s11 = len(groups) / (len(groups) - 1) * sum(bad_sum[k] * good_sum[k] for k in groups)
    return area, s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("grouped", [False, True])
def test_far_from_1_it_is_delongs_and_with_groups_obuchowskis(grouped: bool) -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [60, 40])
    # Half of the defects is not seen at all, so that DeLong's end is the further one.
    scores = np.round(rng.normal(size=100) + 4 * (labels == 1) * (rng.random(100) < 0.5), 1)
    groups = rng.integers(0, 30, 100) if grouped else np.arange(100)
    area, variance = slow_variance(*(scores[labels == v] for v in (0, 1)), *(groups[labels == v] for v in (0, 1)))
    low, high = auroc_interval(labels, scores, groups if grouped else None) or (0, 0)
    half = (special.logit(high) - special.logit(low)) / 2
    error = np.sqrt(variance) / (area * (1 - area))
    assert special.logit(low) + half == pytest.approx(special.logit(area))
    assert 1.96 < half / error < 2.06  # Student's quantile


def test_at_1_and_0_it_is_newcombes() -> None:
    labels = np.repeat([0, 1], [8, 21])
    scores = np.arange(29.0)
    interval = auroc_interval(labels, scores)
    assert interval == newcombe_interval(1.0, 8, 21)
    assert interval is not None
    assert 0.75 < interval[0] < 0.9
    assert interval[1] == 1
    upside = auroc_interval(labels, -scores)
    assert upside is not None
    assert upside == pytest.approx((0, 1 - interval[0]))
    by_pairs = auroc_interval(labels, scores, np.arange(29) // 2)
    assert by_pairs is not None
    assert by_pairs[0] < interval[0] - 0.03


def test_without_one_of_the_classes_there_is_none_and_one_image_of_a_class_is_enough() -> None:
    assert auroc_interval(np.zeros(4, np.int64), np.arange(4.0)) is None
    low, high = auroc_interval(np.array([0, 0, 0, 1]), np.arange(4.0)) or (1, 0)
    assert 0 < low < 0.6
    assert high == 1


@given(
    scores=st.lists(st.integers(-5, 5), min_size=6, max_size=30),
    seed=st.integers(0, 99),
)
def test_it_holds_the_value_whatever_the_order_and_scale_and_mirrors_with_the_labels(
    scores: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = np.array(scores, np.float64)
    labels = np.arange(len(values)) % 2
    groups = rng.integers(0, len(values), len(values))
    for grouping in (None, groups):
        low, high = auroc_interval(labels, values, grouping) or (1, 0)
        area = (1 + np.sign(values[labels == 1][:, None] - values[labels == 0]).mean()) / 2
        assert 0 <= low <= area + 1e-9
        assert area - 1e-9 <= high <= 1
        order = rng.permutation(len(values))
        again = auroc_interval(labels[order], np.exp(values[order]), None if grouping is None else grouping[order])
        assert again == pytest.approx((low, high))
        assert auroc_interval(1 - labels, values, grouping) == pytest.approx((1 - high, 1 - low))


KINDS = ("normal", "spread", "narrow", "unseen")


def defective_scores(kind: str, area: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Against standard normal good scores, with this AUROC: also more or less spread, or a part not seen at all."""
    if kind == "unseen":
        return rng.normal(size=n) + 50 * (rng.random(n) > 2 * (1 - area))
    spread = {"normal": 1.0, "spread": 2.0, "narrow": 0.5}[kind]
    return rng.normal(np.sqrt(1 + spread**2) * stats.norm.ppf(area), spread, n)


@pytest.mark.slow
@pytest.mark.parametrize(("n_good", "n_defective"), [(8, 21), (14, 32), (374, 18), (18, 374), (238, 388)])
def test_it_covers_where_few_images_and_percentiles_do_not(n_good: int, n_defective: int) -> None:
    rng, n = np.random.default_rng([n_good, n_defective]), 300
    labels = np.repeat([0, 1], [n_good, n_defective])
    covered = {way: [] for way in ("this", "Newcombe", "percentiles")}  # type: ignore[var-annotated]
    for kind in KINDS:
        for area in (0.8, 0.9, 0.95, 0.99):
            hits = dict.fromkeys(covered, 0)
            for number in range(n):
                scores = np.concatenate([rng.normal(size=n_good), defective_scores(kind, area, n_defective, rng)])
                value = float(np.searchsorted(np.sort(scores[:n_good]), scores[n_good:]).mean() / n_good)
                ways = {"this": auroc_interval(labels, scores),
                        "Newcombe": newcombe_interval(value, n_good, n_defective)}  # fmt: skip
                if number < n // 6:
                    sample = ImageSample((), labels, scores, None)
                    weights = resample_weights(labels, resamples=150, rng=rng)
                    ways["percentiles"] = percentile_interval(resampled_image_auroc(sample, weights))
                for way, interval in ways.items():
                    assert interval is not None
                    hits[way] += interval[0] <= area <= interval[1]
            for way, count in hits.items():
                covered[way].append(count / (n // 6 if way == "percentiles" else n))
    print(f"{n_good} + {n_defective}:", {way: f"{min(v):.0%} to {max(v):.0%}" for way, v in covered.items()})
    assert min(covered["this"]) > (0.88 if min(n_good, n_defective) == 18 else 0.92)
    assert np.mean(covered["this"]) >= 0.95
    assert min(covered["percentiles"]) < min(covered["this"])


@pytest.mark.slow
@pytest.mark.parametrize(("n_groups", "size"), [(100, 6), (30, 6), (12, 30), (6, 20)])
@pytest.mark.parametrize("mixed", [False, True])
def test_it_covers_where_images_of_a_group_are_alike(n_groups: int, size: int, mixed: bool) -> None:
    """mixed: groups hold good and defective images; else one kind. `share`: of a score's variance, by the group."""
    rng, n = np.random.default_rng([n_groups, size, mixed]), 200
    groups = np.repeat(np.arange(n_groups), size)
    labels = (np.tile(np.arange(size), n_groups) if mixed else groups) % 3 // 2
    covered = {way: [] for way in ("this", "bootstrap, logit", "images alone")}  # type: ignore[var-annotated]
    for share in (0.05, 0.3, 0.9):
        for area in (0.8, 0.95, 0.99):
            hits = dict.fromkeys(covered, 0)
            lift = np.sqrt(2) * stats.norm.ppf(area)
            for _ in range(n):
                scores = np.sqrt(share) * rng.normal(size=n_groups)[groups] + lift * labels
                scores += np.sqrt(1 - share) * rng.normal(size=len(labels))
                ways = {"this": auroc_interval(labels, scores, groups), "images alone": auroc_interval(labels, scores)}
                sample = ImageSample((), labels, scores, None, groups)
                weights = resample_weights(labels, resamples=100, rng=rng, group_index=groups)
                ways["bootstrap, logit"] = on_logit_scale(resampled_image_auroc(sample, weights), labels, scores)
                for way, interval in ways.items():
                    assert interval is not None
                    hits[way] += interval[0] <= area <= interval[1]
            for way, count in hits.items():
                covered[way].append(count / n)
    print(f"{n_groups} groups of {size}, {'mixed' if mixed else 'of one kind'}:",
          {way: f"{min(v):.0%} to {max(v):.0%}" for way, v in covered.items()})  # fmt: skip
    assert min(covered["this"]) > (0.9 if n_groups >= 30 else 0.8)
    assert np.mean(covered["this"]) > 0.95 - 0.02
    assert min(covered["images alone"]) < min(covered["this"])


def on_logit_scale(drawn: np.ndarray | None, labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """A bootstrap's standard deviation in place of Obuchowski's; a point where it is 0."""
    assert drawn is not None
    area = float((1 + np.sign(scores[labels == 1][:, None] - scores[labels == 0]).mean()) / 2)
    if not (drawn.std() > 0 and 0 < area < 1):
        return area, area
    half = 1.96 * drawn.std(ddof=1) / (area * (1 - area))
    return float(special.expit(special.logit(area) - half)), float(special.expit(special.logit(area) + half))
