"""Pooled figures against the evaluation of all images at one place."""

from __future__ import annotations

import numpy as np
import pytest

from data_contracts.errors import UploadError
from pipeline_lib.ground_truth import DefectChannel
from pipeline_lib.image_metrics import image_metrics
from pipeline_lib.pooled_figures import (
    StationFigures,
    lowest_scores,
    pool_figures,
    pooled_spro_curve,
    score_bins,
    station_figures,
)
from pipeline_lib.spro import WHOLE, EvaluationImage, evaluate_pixels

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)


def channel(mask: np.ndarray, area_px: int) -> DefectChannel:
    return DefectChannel(
        defect_name="scratch", mask=mask, saturation_area_px=area_px, weight=1.0, saturation_was_zero=False
    )


def case(seed: int, *, n: int = 12, levels: int | None = None) -> list[EvaluationImage]:
    """Images of several sizes whose defects score somewhat higher, with overlapping channels; one without a mask."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(n):
        height, width = (int(side) for side in rng.integers(40, 70, size=2))
        score_map = rng.gamma(4.0, 0.3, size=(height, width)).astype(np.float32)
        channels = []
        if i % 2:
            for _ in range(int(rng.integers(1, 3))):
                top, left = rng.integers(0, 25, size=2)
                mask = np.zeros((height, width), bool)
                mask[top : top + 9, left : left + 12] = True
                score_map[mask] += rng.gamma(2.0, 0.4)
                channels.append(channel(mask, int(rng.integers(1, 108))))
        if levels:
            score_map = np.round(score_map * levels).astype(np.float32) / np.float32(levels)
        if i == n - 1:
            channels = []
        images.append(
            EvaluationImage(
                image_id=str(i),
                category="cat",
                folder="bad" if i % 2 else "good",
                label_index=i % 2,
                sha256="",
                score=float(score_map.max()),
                load_map=lambda score_map=score_map: score_map,  # type: ignore[misc]
                load_channels=lambda channels=channels: channels,  # type: ignore[misc]
            )
        )
    return images


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("seed", range(4))
def test_three_stations_pooled_equal_all_images_at_one_place(seed: int, levels: int | None) -> None:
    images = case(seed, levels=levels)
    expected = evaluate_pixels(images, fpr_limits=LIMITS).by_subset[WHOLE]
    whole = image_metrics(np.array([i.label_index for i in images]), np.array([i.score for i in images]))
    stations = [station_figures(part) for part in (images[:2], images[2:7], images[7:])]
    stations = [StationFigures.from_arrays(one.to_arrays(), sender="a") for one in stations]
    pooled = pool_figures(stations, fpr_limits=LIMITS)
    assert pooled.auc_spro == pytest.approx({str(k): v for k, v in expected.auc_spro.items()}, abs=1e-3)
    assert pooled.pixel_auroc == pytest.approx(expected.pixel_auroc, abs=1e-3)
    assert (pooled.image_auroc, pooled.image_ap) == (whole.auroc, whole.average_precision)
    assert (pooled.n_good, pooled.n_defective) == (6, 6)


def test_bins_keep_the_order_of_scores_of_any_sign() -> None:
    scores = np.sort(np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    assert (np.diff(score_bins(scores).astype(np.int64)) >= 0).all()
    assert score_bins(np.array([1.0, 1.0 + 2**-12]))[0] < score_bins(np.array([1.0 + 2**-12]))[0]


def test_without_masks_or_defects_figures_are_undefined() -> None:
    good = [image for image in case(0) if not image.label_index]
    pooled = pool_figures([station_figures(good), station_figures([])], fpr_limits=LIMITS)
    assert pooled.auc_spro == dict.fromkeys(map(str, LIMITS))
    assert pooled.pixel_auroc is None
    assert pooled.image_auroc is None
    assert pooled.n_good == len(good)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("bins", None, "expected the arrays"),
        ("spro_lift", np.array([np.nan]), "not finite"),
        ("normal_px", np.array([1, 2, 3]), "same length"),
        ("n_channels", np.array([-1]), "below 0"),
        ("image_scores", np.array(["a"]), "type"),
    ],
)
def test_figures_that_cannot_be_are_refused(name: str, value: np.ndarray | None, reason: str) -> None:
    arrays = station_figures(case(0)).to_arrays()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = np.full_like(arrays[name], np.nan) if name == "spro_lift" else value
    with pytest.raises(UploadError, match=f"figures of station-a refused: .*{reason}"):
        StationFigures.from_arrays(arrays, sender="station-a")


def test_the_pooled_curve_has_the_pooled_areas() -> None:
    stations = [station_figures(case(seed)) for seed in range(3)]
    curve = pooled_spro_curve(stations)
    assert curve is not None
    for limit, area in pool_figures(stations, fpr_limits=LIMITS).auc_spro.items():
        assert curve.area(float(limit)) == pytest.approx(area, abs=1e-3)
    good = [image for image in case(0) if not image.label_index]
    assert pooled_spro_curve([station_figures(good)]) is None


def test_the_lowest_score_of_a_bin_lies_in_it_and_at_most_at_its_scores() -> None:
    scores = np.array([-3.5, -1e-9, 0.0, 1e-9, 0.7, 14.25], np.float32)
    lowest = lowest_scores(score_bins(scores))
    np.testing.assert_array_equal(score_bins(lowest), score_bins(scores))
    assert (lowest <= scores).all()
    np.testing.assert_allclose(lowest, scores, rtol=2**-12)
