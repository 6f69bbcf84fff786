"""What is shown of a difference: against resampling one by one, quantiles, seeds, and what is not tested."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline_lib.benchmark.differences import (
    Component,
    Difference,
    holm,
    paired_difference,
    quantile,
    two_sided_p,
    value_interval,
)
from pipeline_lib.benchmark.paired import ResampledMetrics, resampled_metrics
from tests.pipeline_lib.benchmark.test_paired import sample


def measured(*shifts: float, resamples: int = 500, order: int = 0, n: int = 40) -> dict[int, ResampledMetrics]:
    """One run a seed, whose scores are the seed's own, defective ones higher by its shift."""
    return {
        seed: resampled_metrics([("a", [sample(shift, seed=seed, n=n, order=order)])], resamples=resamples, seed=1)
        for seed, shift in enumerate(shifts)
    }


def difference(*pairs: tuple[float, float], resamples: int = 500) -> Difference:
    first, second = (measured(*(pair[side] for pair in pairs), resamples=resamples, order=3 * side) for side in (0, 1))
    found = paired_difference(first, second, "image_auroc")
    assert found is not None
    return found


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of a good and a defective image that are in order, a tie by half."""
    return float((1 + np.sign(scores[labels == 1][:, None] - scores[labels == 0][None]).mean()) / 2)


def test_over_images_a_difference_has_the_interval_of_resampling_them_one_by_one() -> None:
    found = difference((1.5, 0.5), resamples=2000)
    a, b = sample(1.5), sample(0.5)
    rng = np.random.default_rng(7)
    slow = []
    for _ in range(2000):
        drawn = np.concatenate([rng.integers(0, 40, 40), 40 + rng.integers(0, 40, 40)])
        labels = a.label_index[drawn]
        slow.append(auroc(labels, a.scores[drawn]) - auroc(labels, b.scores[drawn]))
    assert found.images_interval is not None
    np.testing.assert_allclose(found.images_interval, np.percentile(slow, [2.5, 97.5]), atol=0.02)
    assert found.images_p_value is not None
    expected = 2 * stats.t.sf(found.value / np.std(slow) / np.sqrt(40 / 39), 39)
    assert np.log10(found.images_p_value) == pytest.approx(np.log10(expected), abs=0.6)


def test_one_seed_is_not_tested_however_clear_its_images_are() -> None:
    found = difference((2.0, 0.0))
    assert found.images_interval is not None
    assert found.images_interval[0] > 0.2
    assert (found.interval, found.p_value, found.not_tested) == (None, None, "one seed: not tested")


def test_an_experiment_against_itself_is_no_difference() -> None:
    found = difference((1.0, 1.0), (0.5, 0.5))
    assert found == Difference(0.0, (0.0, 0.0), 1.0, (0.0, 0.0), 1.0)


def test_seeds_that_disagree_widen_the_interval_by_students_quantile() -> None:
    agreeing, disagreeing = difference((1.0, 0.8), (1.0, 0.8)), difference((1.0, 0.2), (0.6, 1.0))
    assert agreeing.interval is not None
    assert disagreeing.interval is not None
    assert np.ptp(disagreeing.interval) > 3 * np.ptp(agreeing.interval)
    assert disagreeing.p_value is not None
    assert disagreeing.p_value > 0.5


def test_other_images_no_common_seed_no_masks_and_one_image_of_a_class() -> None:
    first, fewer = measured(1.0, resamples=5), measured(1.0, resamples=5, n=30)
    assert paired_difference(first, fewer, "image_auroc") is None
    assert paired_difference(first, {1: first[0]}, "image_auroc") is None
    assert paired_difference(first, first, "auc_spro_0.05") is None
    none = paired_difference(measured(1.0, 1.0, resamples=0), measured(0.5, 0.5, resamples=0), "image_auroc")
    assert none is not None
    assert none.not_tested == "no resamples: not tested"
    single = paired_difference(measured(1.0, 1.0, n=1), measured(0.5, 0.5, n=1), "image_auroc")
    assert single is not None
    assert single.not_tested == "one image of a class: not tested"


VARIANCES = st.floats(1e-6, 1e3)


@given(images=VARIANCES, seeds=VARIANCES, n_seeds=st.integers(2, 9), level=st.floats(1e-4, 0.5))
def test_the_quantile_lies_between_students_two_and_the_p_value_inverts_it(
    images: float, seeds: float, n_seeds: int, level: float
) -> None:
    parts = [Component(images, 60), Component(seeds, n_seeds - 1)]
    found = quantile(parts, level)
    ends = [stats.t.isf(level / 2, degrees) for degrees in (60, n_seeds - 1)]
    assert ends[0] * (1 - 1e-9) <= found <= ends[1] * (1 + 1e-9)
    assert found == pytest.approx((images * ends[0] + seeds * ends[1]) / (images + seeds), rel=1e-6)
    assert two_sided_p(found, parts) == pytest.approx(level, rel=1e-6)


def test_a_mean_over_seeds_adds_their_spread_to_the_interval_over_images() -> None:
    assert value_interval([(0.8, 0.95)], [0.9]) == pytest.approx((0.8, 0.95))
    low, high = value_interval([(0.8, 0.95), (0.82, 0.97)], [0.9, 0.92]) or (0, 0)
    half = stats.t.ppf(0.975, 1) * np.std([0.9, 0.92], ddof=1) / np.sqrt(2)
    assert low == pytest.approx(0.91 - np.hypot(0.1, half))
    assert high == pytest.approx(min(1, 0.91 + np.hypot(0.05, half)))
    assert value_interval([(0.8, 0.95), None], [0.9, 0.9]) is None
    assert value_interval([], []) is None


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == {
        "a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06), "d": None,
    }  # fmt: skip
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
