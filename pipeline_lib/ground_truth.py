"""Ground-truth masks: one boolean channel a defect region, read from PNG files by the data set's layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DefectChannel:
    """One annotated defect region of one image.

    `saturation_area_px` is the number of its pixels that must be found for a full score (Bergmann et al. 2022,
    MVTec LOCO AD, section 4.1).
    """

    defect_name: str
    mask: np.ndarray  # bool, (height, width)
    saturation_area_px: int
    saturation_was_zero: bool = False  # the configured threshold gave 0 pixels and 1 is used instead
    weight: float = 1.0
