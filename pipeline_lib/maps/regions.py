"""Regions of an anomaly map above a threshold: what a person is shown as the place of a defect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

MAX_REGIONS = 50


@dataclass(frozen=True)
class Region:
    """One 8-connected part of the image; pixels of the image, the box half-open."""

    area_px: int
    left: int
    top: int
    right: int
    bottom: int
    peak_x: int
    peak_y: int
    peak_score: float


def regions_above(anomaly_map: np.ndarray, threshold: float) -> tuple[np.ndarray, list[Region]]:
    """(mask, regions) of a map (height, width) above `threshold`: bool (height, width), highest peak first.

    At most `MAX_REGIONS` are listed; the mask has all.
    """
    mask = anomaly_map > threshold
    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=int))
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == number
        values = np.where(inside, anomaly_map[box], -np.inf)
        y, x = np.unravel_index(int(values.argmax()), values.shape)
        rows, columns = box
        found.append(
            Region(
                int(inside.sum()), columns.start, rows.start, columns.stop, rows.stop,
                columns.start + int(x), rows.start + int(y), float(values[y, x]),
            )
        )  # fmt: skip
    assert len(found) == count
    return mask, sorted(found, key=lambda region: -region.peak_score)[:MAX_REGIONS]
