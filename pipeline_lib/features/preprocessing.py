"""From an image file to the pixels that the backbone sees: resize, scale to [0, 1], normalize.

Images are resized to one size a category (`PreprocessingConfig`) with Pillow's bilinear filter, which averages over
the pixels that fall together when an image is made smaller (antialiasing). `preprocess_image` is the fast path: it
gives 8-bit pixels and leaves normalization to torch; `get_transforms` gives the same pixels as a torchvision pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_contracts.config import PreprocessingConfig
from data_contracts.errors import DatasetError
from data_contracts.settings import BY_TYPE, ImageReading
from pipeline_lib.dataset.images import load_image


def get_resize_shape(category: str, config: PreprocessingConfig | None = None) -> tuple[int, int]:
    """(height, width) in pixels that images of `category` are resized to, in torchvision's order."""
    width, height = (config or PreprocessingConfig()).size(category)
    return height, width


def get_transforms(
    category: str, *, mean: Sequence[float], std: Sequence[float], config: PreprocessingConfig | None = None
) -> Any:
    """A torchvision Compose: PIL image -> float32 tensor (3, height, width), normalized by `mean` and `std`.

    No augmentation: the backbone is frozen, and test images must be treated as training images are.
    """
    from torchvision import transforms  # only here, so that the rest of the module needs no torch

    return transforms.Compose(
        [
            transforms.Resize(
                get_resize_shape(category, config),
                interpolation=transforms.InterpolationMode.BILINEAR,
                antialias=True,
            ),
            transforms.ToTensor(),
            transforms.Normalize(mean=list(mean), std=list(std)),
        ]
    )


def preprocess_image(image: Image.Image, *, width: int, height: int) -> np.ndarray:
    """`image` (RGB) resized to `width` x `height` pixels: uint8 (height, width, 3), writable and contiguous."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


def collect_normalization_statistics(
    paths: Iterable[Path | str], width: int, height: int, reading: ImageReading = BY_TYPE
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each colour over all pixels of the resized images, in units of [0, 1].

    For `preprocessing.mean` and `preprocessing.std`, where a user wants values of their own: a pretrained backbone
    does best with those that it was trained with. The standard deviation is at least 1/255, as one divides by it.

    Raises DatasetError without any image, and ImageError for one that cannot be read.
    """
    totals = np.zeros(3)
    squares = np.zeros(3)
    n_pixels = 0
    for path in paths:
        pixels = (
            preprocess_image(load_image(path, reading), width=width, height=height).reshape(-1, 3).astype(np.float64)
        )
        totals += pixels.sum(axis=0)
        squares += (pixels * pixels).sum(axis=0)
        n_pixels += len(pixels)
    if n_pixels == 0:
        raise DatasetError("no images to collect normalization statistics from; give the paths of training images")
    mean = totals / n_pixels
    std = np.sqrt(np.maximum(squares / n_pixels - mean * mean, 1.0))
    red, green, blue = (mean / 255).tolist()
    std_red, std_green, std_blue = (std / 255).tolist()
    return (red, green, blue), (std_red, std_green, std_blue)
