"""The bootstrap's matrix products against measuring the repeated images again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from data_contracts.errors import ArtifactError
from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.bootstrap import (
    ImageSample,
    confidence_intervals,
    group_numbers,
    in_order,
    percentile_interval,
    resample_weights,
    resampled_auc_spro,
    resampled_image_auroc,
)
from pipeline_lib.metrics.image_metrics import image_metrics
from pipeline_lib.metrics.spro.evaluate import evaluate_pixels
from pipeline_lib.metrics.spro.image_counts import curve_area, score_grid
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)


def make_images(seed: int, *, n: int = 24, levels: int = 0, shift: float = 1.0) -> list[EvaluationImage]:
    rng = np.random.default_rng(seed)
    images = []
    for i in range(n):
        score_map = np.sqrt(rng.chisquare(8, size=(60, 50)))
        channels = []
        for _ in range(i % 3):
            mask = np.zeros(score_map.shape, bool)
            top, left = rng.integers(0, 40, size=2)
            mask[top : top + rng.integers(3, 15), left : left + rng.integers(3, 10)] = True
            score_map[mask] += shift * rng.uniform(0, 2)
            channels.append(DefectChannel("a", mask, int(rng.integers(1, mask.sum() + 1))))
        if levels:
            score_map = np.floor(score_map * levels) / levels
        frozen = score_map.astype(np.float32)
        images.append(
            EvaluationImage(
                f"i{i}",
                "cat",
                "bad" if channels else "good",
                int(bool(channels)),
                f"{i:x}",
                float(frozen.max()),
                lambda frozen=frozen: frozen,  # type: ignore[misc]
                lambda channels=channels: channels,  # type: ignore[misc]
            )
        )
    return images


def make_sample(images: list[EvaluationImage], *, grid_scores: int = 1000) -> ImageSample:
    counts = evaluate_pixels(images, fpr_limits=LIMITS, grid_scores=grid_scores).counts.get(WHOLE)
    labels = np.array([image.label_index for image in images])
    return ImageSample(tuple(i.image_id for i in images), labels, np.array([i.score for i in images]), counts)


@pytest.mark.parametrize("levels", [0, 2, 20])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_grid_is_near_the_exact_area(seed: int, levels: int) -> None:
    images = make_images(seed, levels=levels)
    exact = evaluate_pixels(images, fpr_limits=LIMITS).by_subset[WHOLE].auc_spro
    for grid_scores in (50, 1000):
        sample = make_sample(images, grid_scores=grid_scores)
        for limit in LIMITS:
            got = resampled_auc_spro(sample, np.ones((1, len(images))), fpr_limit=limit)
            assert got is not None
            assert got[0] == pytest.approx(exact[limit], abs=0.5 / grid_scores)


def test_a_grid_of_all_scores_equals_measuring_the_repeated_images() -> None:
    images = make_images(4, n=12, levels=4)
    sample = make_sample(images, grid_scores=10**6)
    weights = resample_weights(sample.label_index, resamples=20, rng=np.random.default_rng(0))
    areas, aurocs = resampled_auc_spro(sample, weights), resampled_image_auroc(sample, weights)
    assert areas is not None
    assert aurocs is not None
    for weight, area, auroc in zip(weights, areas, aurocs, strict=True):
        drawn = [image for image, times in zip(images, weight, strict=True) for _ in range(int(times))]
        again = evaluate_pixels(drawn, fpr_limits=(0.05,)).by_subset[WHOLE].auc_spro[0.05]
        assert area == pytest.approx(again, abs=1e-9)
        expected = image_metrics(np.array([i.label_index for i in drawn]), np.array([i.score for i in drawn]))
        assert auroc == pytest.approx(expected.image_auroc, abs=1e-12)


def test_resamples_keep_the_number_of_good_and_defective() -> None:
    labels = np.array([0, 1, 1, 0, 0, 1, 1])
    weights = resample_weights(labels, resamples=4000, rng=np.random.default_rng(0))
    assert (weights[:, labels == 0].sum(axis=1) == 3).all()
    assert (weights[:, labels == 1].sum(axis=1) == 4).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    assert weights[:, 1].var() == pytest.approx(0.75, abs=0.06)


def test_groups_are_drawn_whole_and_a_resample_has_both_labels() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    apart = np.array([5, 5, 6, 7, 7, 8, 8, 9])
    weights = resample_weights(labels, resamples=3000, rng=np.random.default_rng(0), group_index=apart)
    for first, second in ((0, 1), (3, 4), (5, 6)):
        assert (weights[:, first] == weights[:, second]).all()
    assert (weights[:, [0, 2, 7]].sum(axis=1) == 3).all()  # three groups of good images, two of defective ones
    assert (weights[:, [3, 5]].sum(axis=1) == 2).all()
    assert weights[:, [0, 2, 7]].mean(axis=0) == pytest.approx(np.ones(3), abs=0.06)
    mixed = np.array([0, 1, 2, 0, 1, 2, 3, 4])
    weights = resample_weights(labels, resamples=3000, rng=np.random.default_rng(0), group_index=mixed)
    assert (weights[:, 0] == weights[:, 3]).all()
    assert (weights[:, labels == 0].sum(axis=1) > 0).all()
    assert (weights[:, labels == 1].sum(axis=1) > 0).all()
    assert (weights[:, [0, 1, 2, 6, 7]].sum(axis=1) == 5).all()


def test_images_that_stand_alone_have_numbers_of_their_own() -> None:
    assert group_numbers([None, None]) is None
    numbers = group_numbers(["a", None, "a", None, "b"])
    assert numbers is not None
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 4
    sample = ImageSample(tuple("abcde"), np.array([0, 0, 0, 1, 1]), np.arange(5.0), None, numbers)
    assert sample.independent == (2, 2)
    again = ImageSample.from_arrays(sample.to_arrays())
    assert np.array_equal(again.group_index, numbers)  # type: ignore[arg-type]
    assert in_order(again, lambda image_id: image_id != "c").group_index.tolist() == numbers[[0, 1, 3, 4]].tolist()  # type: ignore[union-attr]


def test_intervals_hold_the_value_and_repeat_with_the_seed() -> None:
    sample = make_sample(make_images(7, n=40))
    intervals = confidence_intervals(sample, resamples=300, rng=np.random.default_rng(1))
    assert intervals == confidence_intervals(sample, resamples=300, rng=np.random.default_rng(1))
    ones = np.ones((1, 40))
    for name, values in (
        ("image_auroc", resampled_image_auroc(sample, ones)),
        ("auc_spro_0.05", resampled_auc_spro(sample, ones)),
    ):
        interval = intervals[name]
        assert interval is not None
        assert values is not None
        assert interval[0] < values[0] < interval[1]
        assert interval[1] - interval[0] < 0.6
    assert confidence_intervals(sample, resamples=0, rng=np.random.default_rng(1)) == {}


def test_undefined_is_none() -> None:
    good = [image for image in make_images(0) if not image.label_index]
    sample = make_sample(good)
    assert confidence_intervals(sample, resamples=10, rng=np.random.default_rng(0)) == {
        "image_auroc": None,
        "auc_spro_0.05": None,
    }
    assert percentile_interval(np.array([np.nan, np.nan])) is None
    assert percentile_interval(np.array([np.nan, 2.0])) == (2.0, 2.0)


def test_a_sample_survives_arrays() -> None:
    sample = make_sample(make_images(3))
    again = ImageSample.from_arrays(sample.to_arrays())
    assert again.image_ids == sample.image_ids
    assert all(np.array_equal(v, sample.to_arrays()[k]) for k, v in again.to_arrays().items())
    without = ImageSample(("a",), np.array([0]), np.array([1.0]), None)
    assert ImageSample.from_arrays(without.to_arrays()).counts is None
    arrays = sample.to_arrays()
    del arrays["spro_sum"]
    with pytest.raises(ArtifactError, match="lack spro_sum"):
        ImageSample.from_arrays(arrays)


def test_curve_area_cuts_the_last_segment() -> None:
    x, y = np.array([[0, 0, 0.2, 1.0]]), np.array([[0, 0.5, 0.5, 1.0]])
    assert curve_area(x, y, limit=0.2)[0] == pytest.approx(0.5)
    assert curve_area(x, y, limit=0.6)[0] == pytest.approx((0.2 * 0.5 + 0.4 * 0.625) / 0.6)


def test_the_grid_leaves_less_than_its_share_between_neighbours() -> None:
    steps = np.random.default_rng(0).dirichlet(np.full(5000, 0.2))
    chosen = score_grid(steps, 100)
    assert len(chosen) <= 101
    assert (np.diff(chosen) < 0).all()
    assert all(steps[low + 1 : high].sum() < 0.01 for high, low in pairwise(chosen))
