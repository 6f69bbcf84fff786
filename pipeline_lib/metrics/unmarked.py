"""What of a defective image's score has nothing to do with the defect: its highest score well away from every mask.

Light, day and camera tell images apart, too, where good and defective ones were not taken under the same conditions.
"""

from __future__ import annotations

import numpy as np

MARGIN_SHARE = 0.1
"""Of the image's shorter side, from a mask: five patches of 50. Patches see that far, and maps are smooth."""


def highest_unmarked(score_map: np.ndarray, mask: np.ndarray | None) -> float:
    """The largest value of a map (height, width) further than the margin from a mask, in rows or in columns.

    Of the whole map without a mask; NaN where nothing is that far away.
    """
    if mask is None:
        return float(score_map.max())
    from scipy.ndimage import maximum_filter1d  # slow to import, and few commands come here

    reach = 2 * round(MARGIN_SHARE * min(mask.shape)) + 1
    near = maximum_filter1d(maximum_filter1d(mask.view(np.uint8), reach, axis=0), reach, axis=1)
    far = score_map[near == 0]
    return float(far.max()) if far.size else float("nan")


def unmarked_image_auroc(label_index: np.ndarray, highest: np.ndarray) -> float | None:
    """AUROC of images by `highest_unmarked`, of which those that are NaN are left out; None where a class is missing.

    0.5, or a little less since a part of a map is compared with whole ones, where only the defects tell images apart.
    """
    known = ~np.isnan(highest)
    defective, values = label_index[known] != 0, highest[known]
    good = np.sort(values[~defective])
    if not len(good) or defective.sum() == 0:
        return None
    found = values[defective]
    below = np.searchsorted(good, found, "left") + np.searchsorted(good, found, "right")
    return float(below.mean() / (2 * len(good)))
