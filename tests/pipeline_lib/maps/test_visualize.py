"""Anomaly maps for the eye: one colour scale, overlay, outline, sizes, errors."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import ImageError
from pipeline_lib.maps.visualize import (
    BAR_PX,
    GAP_PX,
    LABELS_PX,
    OUTLINE,
    colour_map,
    colour_table,
    draw_outline,
    fit,
    map_scale,
    overlay,
    png_bytes,
    relative_heat,
    visualize_anomaly_map,
)


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours (colour, 3), from the definition."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_lightness_of_the_colour_map_rises_evenly() -> None:
    table = lightness(colour_table().astype(np.float64))
    steps = np.diff(table[::8])
    assert (np.diff(table) > 0).all()
    assert table[0] < 5
    assert table[-1] > 95
    assert steps.max() < 2.2 * steps.mean()


def test_equal_scores_have_equal_colours_in_all_images_of_a_category() -> None:
    weak, strong = np.full((4, 4), 2.0, np.float32), np.full((4, 4), 2.0, np.float32)
    strong[1, 1] = 9
    scale = map_scale(np.stack([weak, strong]), np.array([0, 1]))
    assert (colour_map(weak, scale)[0, 0] == colour_map(strong, scale)[0, 0]).all()
    assert lightness(colour_map(strong, scale)[1, 1][None]) > lightness(colour_map(strong, scale)[0, 0][None])


def test_the_scale_starts_at_the_median_of_good_images_and_does_not_follow_one_outlier() -> None:
    maps = np.ones((100, 3, 3), np.float32)
    maps[:50] *= np.linspace(1, 3, 50, dtype=np.float32)[:, None, None]
    labels = np.repeat([0, 1], 50)
    low, high = map_scale(maps, labels)
    assert low == pytest.approx(2, abs=0.05)
    maps[99] = 1e6
    assert map_scale(maps, labels)[1] == pytest.approx(high, rel=0.05)


def test_the_scale_of_flat_maps_and_of_a_set_without_good_images() -> None:
    assert map_scale(np.full((3, 2, 2), 5.0), np.zeros(3)) == (5, 6)
    low, high = map_scale(np.arange(8.0).reshape(2, 2, 2), np.ones(2))
    assert (low, high) == (3.5, pytest.approx(6.8))


@pytest.mark.parametrize("maps", [np.zeros((0, 2, 2)), np.full((1, 2, 2), np.nan)])
def test_no_scale_without_finite_maps(maps: np.ndarray) -> None:
    with pytest.raises(ImageError, match="finite"):
        map_scale(maps, np.zeros(len(maps)))


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_a_scale_that_is_none_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ImageError, match="low < high"):
        relative_heat(np.zeros((2, 2)), scale)


def test_values_beyond_the_scale_are_cut_off() -> None:
    assert relative_heat(np.array([[-9.0, 0.5, 99.0]]), (0, 1)).tolist() == [[0, 0.5, 1]]


def test_the_overlay_leaves_the_low_end_and_covers_the_high_end() -> None:
    pixels = np.full((1, 2, 3), 100, np.uint8)
    mixed = overlay(pixels, np.array([[0.0, 1.0]]), (0, 1), opacity=1)
    assert mixed[0, 0].tolist() == [100, 100, 100]
    assert mixed[0, 1].tolist() == colour_table()[-1].tolist()


def test_the_outline_lies_outside_the_defect() -> None:
    pixels, mask = np.full((20, 20, 3), 90, np.uint8), np.zeros((20, 20), bool)
    mask[8:12, 8:12] = True
    drawn = draw_outline(pixels, mask)
    assert (drawn[mask] == 90).all()
    assert drawn[7, 8].tolist() == list(OUTLINE)
    assert (drawn[0] == 90).all()
    assert (pixels == 90).all()


def test_a_small_defect_survives_a_smaller_picture() -> None:
    mask = np.zeros((1000, 2000), bool)
    mask[999, 1999] = True
    picture, small = fit(Image.new("RGB", (2000, 1000)), mask, 100)
    assert picture.size == (100, 50)
    assert small is not None
    assert small.sum() == 1
    assert small[49, 99]
    assert fit(Image.new("RGB", (20, 10)), None, 100)[0].size == (20, 10)


def test_three_panels_and_the_colour_bar_side_by_side() -> None:
    image = np.full((40, 60, 3), 120, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:20] = True
    grid = np.zeros((4, 6), np.float32)
    grid[1, 1] = 5
    picture = visualize_anomaly_map(image, grid, scale=(0, 5), ground_truth=mask)
    assert picture.size == (3 * 60 + 3 * GAP_PX + BAR_PX + LABELS_PX, 40)
    pixels = np.array(picture)
    assert pixels[30, 50].tolist() == [120, 120, 120]  # image
    assert pixels[39, 60 + GAP_PX + 59].tolist() == colour_table()[0].tolist()  # heat map, far from the defect
    assert (pixels[9, 10] == OUTLINE).all()
    assert (pixels[9, 2 * (60 + GAP_PX) + 10] == OUTLINE).all()
    plain = visualize_anomaly_map(Image.fromarray(image), grid, scale=(0, 5), panel_px=30, colour_bar=False)
    assert plain.size == (3 * 30 + 2 * GAP_PX, 20)
    assert Image.open(io.BytesIO(png_bytes(plain))).size == plain.size


def test_what_does_not_fit_is_named() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ImageError, match="must be equal"):
        visualize_anomaly_map(image, np.zeros((2, 2)), scale=(0, 1), ground_truth=np.zeros((6, 4), bool))
    with pytest.raises(ImageError, match=r"\(height, width\), this one \(2,\)"):
        visualize_anomaly_map(image, np.zeros(2), scale=(0, 1))
