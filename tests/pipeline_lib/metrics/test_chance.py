"""What noise scores: the exact expectation against drawn noise, measured by the product and by hand; its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.spro.chance import chance_auc_spro
from pipeline_lib.metrics.spro.evaluate import evaluate_pixels
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage
from pipeline_lib.metrics.unmarked import highest_unmarked, unmarked_image_auroc

LIMITS = (0.01, 0.05, 0.3, 1.0)


def chance(area: int, saturation: int, limit: float) -> float:
    found = chance_auc_spro(np.array([area]), np.array([saturation]), [limit])[limit]
    assert found is not None
    return found


def noise(seed: int, *, n: int = 40, side: int = 100) -> list[EvaluationImage]:
    """Maps of noise; every second image has a channel of 30 or 600 pixels, of which 12 or 40 saturate it."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(n):
        score_map, mask = rng.random((side, side), np.float32), np.zeros((side, side), bool)
        area, saturation = ((5, 6), 12) if i % 4 == 1 else ((20, 30), 40)
        mask[10 : 10 + area[0], 40 : 40 + area[1]] = True
        channels = [DefectChannel("a", mask, saturation)] if i % 2 else []
        images.append(
            EvaluationImage(
                f"i{i}", "cat", "bad" if channels else "good", i % 2, "0", float(score_map.max()),
                lambda score_map=score_map: score_map, lambda channels=channels: channels,  # type: ignore[misc]
            )
        )  # fmt: skip
    return images


def test_drawn_noise_scores_what_is_expected_of_it() -> None:
    found = [evaluate_pixels(noise(seed), fpr_limits=LIMITS).by_subset[WHOLE] for seed in range(8)]
    for limit in LIMITS:
        drawn = [one.auc_spro[limit] for one in found]
        expected = found[0].auc_spro_chance[limit]
        assert expected == pytest.approx((chance(30, 12, limit) + chance(600, 40, limit)) / 2)
        assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / np.sqrt(8) + 1e-3)
    assert found[0].auc_spro_chance[0.05] > 0.15  # far above limit / 2


@given(area=st.integers(1, 60), limit=st.floats(0.01, 1), data=st.data())
def test_it_is_the_area_below_a_binomials_expectation(area: int, limit: float, data: st.DataObject) -> None:
    from scipy import integrate, stats

    saturation = data.draw(st.integers(1, area))
    counts = np.arange(area + 1)
    found = np.minimum(counts, saturation) / saturation

    def spro(rate: float) -> float:
        return float(stats.binom.pmf(counts, area, rate) @ found)

    expected = integrate.fixed_quad(np.vectorize(spro), 0, limit, n=40)[0] / limit
    assert chance(area, saturation, limit) == pytest.approx(expected, abs=1e-9)


def test_without_saturation_it_is_half_the_limit_and_one_pixel_of_many_is_found_at_once() -> None:
    assert chance(1000, 1000, 0.05) == pytest.approx(0.025)
    assert chance(10**6, 1, 0.05) > 0.9999
    assert chance(1000, 5000, 0.05) == pytest.approx(0.025)  # no more than the channel has
    assert chance_auc_spro(np.zeros(0), np.zeros(0), [0.05]) == {0.05: None}


def test_the_highest_score_away_from_a_mask() -> None:
    score_map, mask = np.zeros((40, 60), np.float32), np.zeros((40, 60), bool)
    mask[10:12, 20:22] = True  # the margin is 4 pixels, in rows and in columns
    score_map[11, 21], score_map[15, 21], score_map[16, 21], score_map[11, 27] = 9, 8, 2, 3
    assert highest_unmarked(score_map, mask) == 3
    assert highest_unmarked(score_map, None) == 9
    assert np.isnan(highest_unmarked(score_map, np.ones((40, 60), bool)))


def test_images_that_differ_in_light_alone_are_told_apart_without_their_defects() -> None:
    labels, highest = np.array([0, 0, 1, 1, 1]), np.array([1.0, 2.0, 2.0, 3.0, np.nan])
    assert unmarked_image_auroc(labels, highest) == pytest.approx((1.5 + 2) / 4)
    assert unmarked_image_auroc(labels[:2], highest[:2]) is None
    assert unmarked_image_auroc(labels[2:], highest[2:]) is None


def test_a_category_has_both_and_defects_alone_leave_unmarked_patches_at_chance() -> None:
    from pipeline_lib.metrics.category import compute_metrics

    def measured(light: float) -> tuple[float, float]:
        images = []
        for image in noise(3, n=60):
            own, channels = image.load_map() + np.float32(light * image.label_index), image.load_channels()
            for channel in channels:
                own[channel.mask] += 1
            images.append(
                EvaluationImage(**{**vars(image), "score": float(own.max()), "load_map": lambda own=own: own})
            )
        metrics = compute_metrics(
            images, fpr_limits=LIMITS, bootstrap=0, rng=np.random.default_rng(0), defect_groups={}
        ).metrics
        assert metrics.image_auroc == 1
        assert metrics.by_defect["a"].auc_spro_chance == metrics.auc_spro_chance
        assert metrics.auc_spro_chance["0.05"] is not None
        assert metrics.unmarked_image_auroc is not None
        return metrics.unmarked_image_auroc, metrics.by_defect["a"].unmarked_image_auroc or 0

    dark, of_defect = measured(0.0)
    assert dark == of_defect
    assert 0.25 < dark < 0.65
    assert measured(0.5)[0] == 1
