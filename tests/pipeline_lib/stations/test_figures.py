"""Pooled figures against the evaluation of all images at one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import UploadError
from data_contracts.results import FederationSummary
from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.image_metrics import image_metrics
from pipeline_lib.metrics.spro.evaluate import evaluate_pixels
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage
from pipeline_lib.stations import figures as pooled_figures
from pipeline_lib.stations.figures import StationFigures, pool_figures, pooled_spro_curve, station_figures
from pipeline_lib.stations.results import joined_calibration, pool_stations

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


def at_level(images: list[EvaluationImage], offset: float, scale: float) -> list[EvaluationImage]:
    """The same images with scores offset + scale x, rounded to float32."""
    moved = []
    for image in images:
        score_map = (offset + scale * image.load_map().astype(np.float64)).astype(np.float32)
        moved.append(
            dataclasses.replace(image, score=float(score_map.max()), load_map=lambda score_map=score_map: score_map)
        )
    return moved


def exactly(images: list[EvaluationImage]) -> dict[str, float]:
    """The oracle: all images at one place."""
    found = evaluate_pixels(images, fpr_limits=LIMITS).by_subset[WHOLE]
    assert found.pixel_auroc is not None
    return {"pixel_auroc": found.pixel_auroc} | {str(k): v for k, v in found.auc_spro.items() if v is not None}


def pooled(parts: Sequence[list[EvaluationImage]]) -> tuple[dict[str, float], float]:
    """The figures of stations that hold these images, and what they are said to be off by at most."""
    sent = [StationFigures.from_arrays(station_figures(part).to_arrays(), sender="a") for part in parts]
    found = pool_figures(sent, fpr_limits=LIMITS)
    assert found.metrics.pixel_auroc is not None
    assert found.error is not None
    areas = {name: area for name, area in found.metrics.auc_spro.items() if area is not None}
    return {"pixel_auroc": found.metrics.pixel_auroc} | areas, found.error


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("seed", range(4))
def test_three_stations_pooled_equal_all_images_at_one_place(seed: int, levels: int | None) -> None:
    images = case(seed, levels=levels)
    whole = image_metrics(np.array([i.label_index for i in images]), np.array([i.score for i in images]))
    parts = images[:2], images[2:7], images[7:]
    found, error = pooled(parts)
    assert found == pytest.approx(exactly(images), abs=error + 1e-9)
    assert error < 1e-3 if levels is None else error < 1e-9  # scores of few levels are counted one by one
    of_images = pool_figures([station_figures(part) for part in parts], fpr_limits=LIMITS).metrics
    assert (of_images.image_auroc, of_images.image_ap) == (whole.image_auroc, whole.image_ap)
    assert (of_images.n_good, of_images.n_defective) == (6, 6)


@pytest.mark.parametrize(
    ("offset", "scale"), [(1000.0, 0.05), (-1000.0, 0.05), (1e6, 1.0), (0.0, 1e-30), (0.0, 1e30), (-1.5, 1.0)]
)
def test_whatever_level_scores_have_and_however_little_they_differ(offset: float, scale: float) -> None:
    images = at_level(case(1), offset, scale)
    for parts in ([images], [images[:2], images[2:7], images[7:]]):
        found, error = pooled(parts)
        assert found == pytest.approx(exactly(images), abs=error + 1e-9)
        assert error < 1e-3


def test_stations_whose_scores_lie_at_different_levels() -> None:
    """One has its normal images where the other has its defects, and hardly a pixel there itself."""
    images = case(2, n=24)
    good = at_level([image for image in images if not image.label_index], 1000.0, 0.05)
    bad = at_level([image for image in images if image.label_index], 999.5, 0.3)
    low = at_level(case(3), 1.0, 1.0)
    found, error = pooled([good, bad, low])
    assert found == pytest.approx(exactly([*good, *bad, *low]), abs=error + 1e-9)
    assert error < 1e-3


@pytest.mark.parametrize("share", [2.0**-8, 2.0**-5, 2.0**-3])
def test_the_error_that_is_said_is_kept_and_follows_from_the_share(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled_figures, "SHARE", share)
    for seed in range(4):
        images = case(seed, levels=(None, 64)[seed % 2])
        found, error = pooled([images[:2], images[2:7], images[7:]])
        assert found == pytest.approx(exactly(images), abs=error + 1e-9)
        assert error < 2 * share
    assert error > 0


def earlier(figures: StationFigures) -> dict[str, np.ndarray]:
    """As stations of earlier versions counted: bins of float32 without its last ten bits (positive scores)."""
    bins, place = np.unique(figures.lowest.view(np.uint32) >> 10, return_inverse=True)
    arrays = {name: values for name, values in figures.to_arrays().items() if name not in ("lowest", "highest")}
    for name in ("normal_px", "marked_px", "spro_lift"):
        arrays[name] = np.bincount(place, weights=arrays[name]).astype(arrays[name].dtype)
    return arrays | {"bins": (bins | (1 << 21)).astype(np.uint32)}


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1000.0, 0.05)])
def test_coarse_bins_of_an_earlier_station_are_taken_and_the_error_is_said(offset: float, scale: float) -> None:
    images = at_level(case(1, levels=64), offset, scale)
    whole = station_figures(images)
    taken = StationFigures.from_arrays(earlier(whole), sender="a")
    assert (taken.lowest <= taken.highest).all()
    found = pool_figures([taken], fpr_limits=LIMITS)
    expected = exactly(images)
    assert found.error is not None
    values = {"pixel_auroc": found.metrics.pixel_auroc} | found.metrics.auc_spro
    assert values == pytest.approx(expected, abs=found.error)
    assert found.error > 1e-2 if offset else found.error < 1e-2


def test_the_document_says_how_far_pooled_figures_may_be_off() -> None:
    config = ExperimentConfig.model_validate({"evaluation": {"bootstrap": 0}})
    fine = station_figures(at_level(case(1, levels=64), 1000.0, 0.05))
    coarse = StationFigures.from_arrays(earlier(fine), sender="b")
    for stations, n_warnings in (({"a": fine}, 0), ({"a": fine, "b": coarse}, 1)):
        pooled = pool_stations(config, [{"cat": stations}], joined_calibration([]), FederationSummary())
        document = pooled.documents["all"]
        found = pool_figures([*stations.values()], fpr_limits=LIMITS)
        assert document.federation.pooling_error == found.error
        assert document.categories["cat"].auc_spro == document.mean.auc_spro == found.metrics.auc_spro
        assert len(document.warnings) == n_warnings
    assert document.warnings[0].startswith("cat: pixel AUROC and AUC-sPRO may be off by 0.21")


def test_what_is_sent_does_not_grow_with_the_pixels() -> None:
    score_map = np.random.default_rng(0).gamma(4.0, 0.3, size=(1000, 1000)).astype(np.float32)
    (image,) = case(0, n=1)
    few, many = (
        station_figures([dataclasses.replace(image, load_map=lambda m=m: m)]) for m in (score_map[:100], score_map)
    )
    assert (few.normal_px.sum(), many.normal_px.sum()) == (100_000, 1_000_000)
    for one in (few, many):
        assert 5_000 < len(one.lowest) < 20_000
        assert (one.lowest[1:] > one.highest[:-1]).all()


def test_without_masks_or_defects_figures_are_undefined() -> None:
    good = [image for image in case(0) if not image.label_index]
    found = pool_figures([station_figures(good), station_figures([])], fpr_limits=LIMITS)
    assert found.metrics.auc_spro == dict.fromkeys(map(str, LIMITS))
    assert found.metrics.pixel_auroc is None
    assert found.metrics.image_auroc is None
    assert found.metrics.n_good == len(good)
    assert found.error is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("lowest", None, "expected the arrays"),
        ("lowest", np.inf, "not finite"),
        ("lowest", 1e9, "above the highest"),
        ("spro_lift", np.nan, "not finite"),
        ("normal_px", np.array([1, 2, 3]), "same length"),
        ("n_channels", np.array([-1]), "below 0"),
        ("image_scores", np.array(["a"]), "type"),
    ],
)
def test_figures_that_cannot_be_are_refused(name: str, value: np.ndarray | float | None, reason: str) -> None:
    arrays = station_figures(case(0)).to_arrays()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = np.full_like(arrays[name], value) if isinstance(value, float) else value
    with pytest.raises(UploadError, match=f"figures of station-a refused: .*{reason}"):
        StationFigures.from_arrays(arrays, sender="station-a")


def test_the_pooled_curve_has_the_pooled_areas() -> None:
    stations = [station_figures(case(seed)) for seed in range(3)]
    curve = pooled_spro_curve(stations)
    assert curve is not None
    for limit, area in pool_figures(stations, fpr_limits=LIMITS).metrics.auc_spro.items():
        assert curve.area(float(limit)) == pytest.approx(area, abs=1e-3)
    good = [image for image in case(0) if not image.label_index]
    assert pooled_spro_curve([station_figures(good)]) is None
