"""Maps and masks that are loaded once although an image is measured twice: in all of test and in its half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.spro.records import EvaluationImage

KEPT_BYTES = 256 * 2**20  # of a category's maps and masks; what is beyond is loaded again
Loaded = TypeVar("Loaded")


def kept_images(images: Sequence[EvaluationImage], *, limit_bytes: int = KEPT_BYTES) -> list[EvaluationImage]:
    """The same images; the first maps and masks that are loaded stay, read-only, up to `limit_bytes` together."""
    kept_bytes = 0

    def once(load: Callable[[], Loaded], arrays_of: Callable[[Loaded], list[np.ndarray]]) -> Callable[[], Loaded]:
        kept: list[Loaded] = []

        def loaded() -> Loaded:
            nonlocal kept_bytes
            if kept:
                return kept[0]
            found = load()
            arrays = arrays_of(found)
            size = sum(array.nbytes for array in arrays)
            if kept_bytes + size <= limit_bytes:
                kept_bytes += size
                kept.append(found)
                for array in arrays:
                    array.flags.writeable = False
            return found

        return loaded

    def masks(channels: list[DefectChannel]) -> list[np.ndarray]:
        return [channel.mask for channel in channels]

    return [
        replace(
            image,
            load_map=once(image.load_map, lambda array: [array]),
            load_channels=once(image.load_channels, masks),
        )
        for image in images
    ]
