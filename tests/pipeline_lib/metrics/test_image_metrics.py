"""Image metrics against counting pairs and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.metrics.image_metrics import image_metrics, precision_recall, roc, threshold_at_tnr
from pipeline_lib.metrics.spro.areas import thin_curve

SCORES = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@given(good=SCORES, defective=SCORES)
def test_equals_counting(good: list[int], defective: list[int]) -> None:
    labels = np.array([0] * len(good) + [1] * len(defective))
    scores = np.array(good + defective) / 8
    got = image_metrics(labels, scores)
    pairs = [1.0 if d > g else 0.5 if d == g else 0.0 for d in defective for g in good]
    assert got.image_auroc == pytest.approx(np.mean(pairs), abs=1e-12)
    average_precision, found_before = 0.0, 0
    for threshold in sorted(set(good + defective), reverse=True):
        found = sum(d >= threshold for d in defective)
        precision = found / (found + sum(g >= threshold for g in good))
        average_precision += precision * (found - found_before) / len(defective)
        found_before = found
    assert got.image_ap == pytest.approx(average_precision, abs=1e-12)
    for rate in (0.99, 0.95, 0.9):
        best = max(np.mean([d > t for d in defective]) for t in good if np.mean([g <= t for g in good]) >= rate - 1e-12)
        assert got.tpr_at_tnr[str(rate)] == pytest.approx(best, abs=1e-12)
    assert (got.n_good, got.n_defective) == (len(good), len(defective))


def test_the_threshold_is_not_moved_by_rounding() -> None:
    for n in (20, 60, 100, 140, 300):
        assert threshold_at_tnr(np.arange(n), 0.95) == round(0.95 * n) - 1


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_is_undefined(labels: list[int]) -> None:
    scores = np.arange(len(labels), dtype=float)
    got = image_metrics(np.array(labels), scores)
    assert (got.image_auroc, got.image_ap) == (None, None)
    assert got.tpr_at_tnr == {"0.99": None, "0.95": None, "0.9": None}
    assert roc(np.array(labels), scores) is None
    assert precision_recall(np.array(labels), scores) is None


def test_curves_have_the_area_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    scores = np.round(rng.normal(labels), 1)
    got = image_metrics(labels, scores)
    curve = roc(labels, scores)
    assert curve is not None
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(got.image_auroc)
    assert np.isnan(curve.threshold[0])
    assert np.isfinite(curve.threshold[1:]).all()
    precisions = precision_recall(labels, scores)
    assert precisions is not None
    assert (np.diff(precisions.x) >= 0).all()
    assert np.sum(np.diff(precisions.x) * precisions.y[1:]) == pytest.approx(got.image_ap, abs=0.01)
    assert (precisions.x[0], precisions.y[0], precisions.x[-1]) == (0, 1, 1)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 image scores are not finite"):
        image_metrics(np.array([0, 1]), np.array([np.nan, 1]))
    with pytest.raises(ValueError, match="as many"):
        image_metrics(np.array([0, 1]), np.array([1.0]))


def test_thinning_keeps_corners_and_short_ranges() -> None:
    x = np.concatenate([np.linspace(0, 0.01, 5000), np.linspace(0.01, 1, 5000)])
    y = np.sqrt(np.minimum(x, 0.25))
    kept = thin_curve(x, y, points=200)
    assert len(kept) == 200
    assert kept[0] == 0
    assert kept[-1] == len(x) - 1
    for limit in (0.001, 0.01, 0.1, 1.0):
        grid = np.linspace(0, limit, 20001)
        off = np.interp(grid, x[kept], y[kept]) - np.interp(grid, x, y)
        assert abs(off).mean() < 1e-4
    assert thin_curve(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0]), points=9).tolist() == [0, 2]
