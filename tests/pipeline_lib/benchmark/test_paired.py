"""Paired comparison: against the slow way of resampling, Holm by hand, seeds and categories."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline_lib.benchmark.paired import Difference, holm, paired_difference, resampled_metrics
from pipeline_lib.metrics.bootstrap import ImageSample, in_order, resampled_average_precision


def sample(shift: float, *, seed: int = 0, n: int = 40, order: int = 0) -> ImageSample:
    """Scores of n good and n defective images, the defective ones higher by `shift`; `order` shuffles the rows."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    scores = rng.normal(size=2 * n) + shift * labels
    rows = np.random.default_rng(order).permutation(2 * n) if order else np.arange(2 * n)
    return ImageSample(tuple(f"i{i:03d}" for i in rows), labels[rows], scores[rows], None)


def difference(*pairs: tuple[float, float], resamples: int = 500) -> Difference | None:
    first = {s: resampled_metrics([("a", [sample(x, seed=s)])], resamples=resamples, seed=1) for s, (x, _) in
             enumerate(pairs)}  # fmt: skip
    second = {s: resampled_metrics([("a", [sample(y, seed=s, order=3)])], resamples=resamples, seed=1)
              for s, (_, y) in enumerate(pairs)}  # fmt: skip
    return paired_difference(first, second, "image_auroc", resamples=resamples, seed=1)


def test_the_first_value_is_the_metric_itself_whatever_the_order_of_the_images() -> None:
    one = sample(1.0)
    expected = roc_auc_score(one.label_index, one.scores)
    for order in (0, 5):
        found = resampled_metrics([("a", [sample(1.0, order=order)])], resamples=3, seed=0)
        assert found.by_category["image_auroc"]["a"][0] == pytest.approx(expected)
    same = resampled_metrics([("a", [sample(1.0, order=9)])], resamples=3, seed=0)
    np.testing.assert_allclose(same.by_category["image_auroc"]["a"], found.by_category["image_auroc"]["a"])


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of a good and a defective image that are in order, a tie by half."""
    return float((1 + np.sign(scores[labels == 1][:, None] - scores[labels == 0][None]).mean()) / 2)


def test_a_difference_has_the_interval_of_resampling_images_one_by_one() -> None:
    found = difference((1.5, 0.5), resamples=2000)
    assert found is not None
    assert found.interval is not None
    a, b = sample(1.5), sample(0.5)
    rng = np.random.default_rng(7)
    slow = []
    for _ in range(2000):
        drawn = np.concatenate([rng.integers(0, 40, 40), 40 + rng.integers(0, 40, 40)])
        labels = a.label_index[drawn]
        slow.append(auroc(labels, a.scores[drawn]) - auroc(labels, b.scores[drawn]))
    np.testing.assert_allclose(found.interval, np.percentile(slow, [2.5, 97.5]), atol=0.02)
    assert found.p_value is not None
    assert found.p_value < 0.01


def test_an_experiment_against_itself_is_no_difference() -> None:
    found = difference((1.0, 1.0))
    assert found == Difference(0.0, (0.0, 0.0), 1.0)


def test_seeds_that_disagree_widen_the_interval() -> None:
    agreeing = difference((1.0, 0.8), (1.0, 0.8))
    disagreeing = difference((1.0, 0.2), (0.6, 1.0))
    assert agreeing is not None
    assert disagreeing is not None
    assert agreeing.interval is not None
    assert disagreeing.interval is not None
    assert np.ptp(disagreeing.interval) > 1.5 * np.ptp(agreeing.interval)


def test_other_images_or_no_common_seed_give_nothing() -> None:
    first = {0: resampled_metrics([("a", [sample(1.0)])], resamples=5, seed=0)}
    fewer = {0: resampled_metrics([("a", [sample(1.0, n=30)])], resamples=5, seed=0)}
    assert paired_difference(first, fewer, "image_auroc", resamples=5, seed=0) is None
    assert paired_difference(first, {1: first[0]}, "image_auroc", resamples=5, seed=0) is None
    assert paired_difference(first, first, "auc_spro_0.05", resamples=5, seed=0) is None  # no masks


def test_clients_alone_count_with_their_mean_and_must_share_their_images() -> None:
    both = resampled_metrics([("a", [sample(1.0), sample(0.0, seed=4)])], resamples=4, seed=0)
    each = [
        resampled_metrics([("a", [one])], resamples=4, seed=0).by_category["image_auroc"]["a"]
        for one in (sample(1.0), sample(0.0, seed=4))
    ]
    np.testing.assert_allclose(both.by_category["image_auroc"]["a"], np.mean(each, axis=0))
    with pytest.raises(ValueError, match="same test images of a"):
        resampled_metrics([("a", [sample(1.0), sample(1.0, n=30)])], resamples=4, seed=0)


def test_a_part_of_the_images_in_order() -> None:
    part = in_order(sample(1.0, order=3), lambda image_id: image_id < "i010")
    assert part.image_ids == tuple(f"i{i:03d}" for i in range(10))
    assert part.label_index.tolist() == [0] * 10


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == {
        "a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06), "d": None,
    }  # fmt: skip
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_average_precision_of_resamples_is_scikit_learns_with_ties_and_weights() -> None:
    rng = np.random.default_rng(0)
    one = sample(1.0, n=15)
    tied = ImageSample(one.image_ids, one.label_index, np.round(one.scores, 0), None)
    weights = rng.integers(0, 3, (6, 30)).astype(np.float64)
    for images in (one, tied):
        found = resampled_average_precision(images, weights)
        expected = [average_precision_score(images.label_index, images.scores, sample_weight=w) for w in weights]
        np.testing.assert_allclose(found, expected)
    good = ImageSample(one.image_ids[:15], one.label_index[:15], one.scores[:15], None)
    assert resampled_average_precision(good, weights[:, :15]) is None
