"""Resizing and normalization: the fast path and the torchvision path must be the same pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_contracts.config import PreprocessingConfig
from data_contracts.errors import DatasetError, ImageError
from pipeline_lib.features.preprocessing import (
    collect_normalization_statistics,
    get_resize_shape,
    get_transforms,
    preprocess_image,
)
from tests.dataset_fixtures import tiny_pixels, write_image

torch.set_num_threads(1)


def test_resize_shape_is_height_then_width() -> None:
    assert get_resize_shape("pipe_clip") == (400, 400)
    assert get_resize_shape("tank_screw") == (750, 1000)
    assert get_resize_shape("tank_screw", PreprocessingConfig(size_by_category={"tank_screw": (64, 32)})) == (32, 64)


@pytest.mark.parametrize("native", [(130, 90), (40, 200), (64, 48), (30, 20)])
def test_transform_and_fast_path_give_the_same_pixels(native: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (native[1], native[0], 3), dtype=np.uint8))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    config = PreprocessingConfig(small_size=(64, 48))
    transformed = get_transforms("pipe_clip", mean=mean, std=std, config=config)(image)
    assert transformed.shape == (3, 48, 64)
    assert transformed.dtype == torch.float32
    pixels = preprocess_image(image, width=64, height=48)
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    assert np.abs(transformed.permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_making_smaller_averages_over_all_pixels() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 252  # without antialiasing, a fourth of the size would see only what lies between the stripes
    small = preprocess_image(Image.fromarray(stripes), width=16, height=16)
    assert np.abs(small[:, 1:-1].astype(int) - 63).max() <= 3


def test_statistics_equal_those_of_all_pixels_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [tiny_pixels(rng, (32, 32)) for _ in range(3)]
    paths = [write_image(tmp_path / f"{number}.png", pixels) for number, pixels in enumerate(images)]
    mean, std = collect_normalization_statistics(paths, 32, 32)
    together = np.stack(images).reshape(-1, 3) / 255
    assert np.allclose(mean, together.mean(axis=0), atol=1e-12)
    assert np.allclose(std, together.std(axis=0), atol=1e-9)
    PreprocessingConfig(mean=mean, std=std)


def test_statistics_of_one_colour_can_be_divided_by(tmp_path: Path) -> None:
    path = write_image(tmp_path / "flat.png", np.full((32, 32, 3), 255, np.uint8))
    mean, std = collect_normalization_statistics([path], 32, 32)
    assert mean == (1.0, 1.0, 1.0)
    assert std == pytest.approx((1 / 255,) * 3)


def test_statistics_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no images"):
        collect_normalization_statistics([], 32, 32)
    with pytest.raises(ImageError, match=r"gone\.png"):
        collect_normalization_statistics([tmp_path / "gone.png"], 32, 32)
