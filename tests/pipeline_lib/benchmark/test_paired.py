"""Metrics in the same resamples: whatever the order of the images, by category, with clients that train alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline_lib.benchmark.paired import resampled_metrics
from pipeline_lib.metrics.bootstrap import ImageSample, in_order, resampled_average_precision


def sample(shift: float, *, seed: int = 0, n: int = 40, order: int = 0) -> ImageSample:
    """Scores of n good and n defective images, the defective ones higher by `shift`; `order` shuffles the rows."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    scores = rng.normal(size=2 * n) + shift * labels
    rows = np.random.default_rng(order).permutation(2 * n) if order else np.arange(2 * n)
    return ImageSample(tuple(f"i{i:03d}" for i in rows), labels[rows], scores[rows], None)


def test_the_first_value_is_the_metric_itself_whatever_the_order_of_the_images() -> None:
    one = sample(1.0)
    expected = roc_auc_score(one.label_index, one.scores)
    for order in (0, 5):
        found = resampled_metrics([("a", [sample(1.0, order=order)])], resamples=3, seed=0)
        assert found.by_category["image_auroc"]["a"][0] == pytest.approx(expected)
    same = resampled_metrics([("a", [sample(1.0, order=9)])], resamples=3, seed=0)
    np.testing.assert_allclose(same.by_category["image_auroc"]["a"], found.by_category["image_auroc"]["a"])


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


def test_groups_are_drawn_whole_and_count_as_one_each() -> None:
    one = sample(0.5, n=40)
    grouped = replace(one, group_index=np.arange(80) // 4)
    alone, by_group = (resampled_metrics([("a", [s])], resamples=800, seed=0) for s in (one, grouped))
    assert (alone.degrees["a"], by_group.degrees["a"]) == (39, 9)
    first, second = (found.by_category["image_auroc"]["a"] for found in (alone, by_group))
    assert first[0] == second[0]
    same = replace(one, scores=np.repeat(one.scores[::4], 4), group_index=grouped.group_index)
    alike = [resampled_metrics([("a", [s])], resamples=800, seed=0).by_category["image_auroc"]["a"]
             for s in (replace(same, group_index=None), same)]  # fmt: skip
    assert alike[1].std() > 1.6 * alike[0].std()  # four equal images are one
