"""Maps and masks that are measured twice are loaded once, as far as they fit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.kept_images import kept_images
from pipeline_lib.metrics.spro.records import EvaluationImage

MAP_BYTES, MASK_BYTES = 4 * 6 * 4, 4 * 6


def images_of(loads: Counter[str], n: int) -> list[EvaluationImage]:
    """Defective images that count how often they are loaded."""

    def image(name: str) -> EvaluationImage:
        def load_map() -> np.ndarray:
            loads[f"{name} map"] += 1
            return np.zeros((4, 6), np.float32)

        def load_channels() -> list[DefectChannel]:
            loads[f"{name} mask"] += 1
            return [DefectChannel("scratch", np.ones((4, 6), bool), 1)]

        return EvaluationImage(name, "part", "scratch", 1, "0", 0.5, load_map, load_channels)

    return [image(f"{number}") for number in range(n)]


def test_what_fits_is_loaded_once_and_cannot_be_changed() -> None:
    loads: Counter[str] = Counter()
    for image in kept_images(images_of(loads, 2)) * 2:
        with pytest.raises(ValueError, match="read-only"):
            image.load_map().sort()
        assert not image.load_channels()[0].mask.flags.writeable
    assert loads == {"0 map": 1, "0 mask": 1, "1 map": 1, "1 mask": 1}


def test_what_is_beyond_the_limit_is_loaded_again() -> None:
    loads: Counter[str] = Counter()
    for image in kept_images(images_of(loads, 2), limit_bytes=MAP_BYTES + MASK_BYTES) * 2:
        image.load_map()
        image.load_channels()
    assert loads == {"0 map": 1, "0 mask": 1, "1 map": 2, "1 mask": 2}
