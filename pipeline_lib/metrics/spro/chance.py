"""What AUC-sPRO a map of noise has: exactly, from the sizes of the channels and their saturation areas.

The scores of all pixels are independent draws of one distribution. At a false positive rate t each of the A pixels of a
channel is found with probability t, so that sPRO(t) = E min(B, s) / s with B binomial(A, t) and s the saturation area.
With I the regularised incomplete beta function, P(B >= k) = I_t(k, A - k + 1) and

    E min(B, s) = A t P(B' <= s - 2) + s P(B >= s),  B' binomial(A - 1, t)

whose integral over t up to the limit is again made of I. Without saturation (s = A) the figure is limit / 2; where few
pixels of many saturate a channel, it is near 1. The share of normal pixels found is taken as t: there are very many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def chance_auc_spro(
    areas_px: np.ndarray, saturation_areas_px: np.ndarray, limits: Sequence[float]
) -> dict[float, float | None]:
    """limit -> expected area up to it, divided by it, mean over channels; None without channels.

    areas_px, saturation_areas_px: int (channel,), both at least 1.
    """
    if not len(areas_px):
        return dict.fromkeys(limits)
    area, saturation = np.asarray(areas_px, np.float64), np.minimum(saturation_areas_px, areas_px).astype(np.float64)
    return {limit: float(np.mean(_integral(area, saturation, limit) / saturation / limit)) for limit in limits}


def _integral(area: np.ndarray, saturation: np.ndarray, limit: float) -> np.ndarray:
    """Of E min(B, s) over t from 0 to the limit, float64 (channel,)."""
    from scipy import special  # slow to import, and few commands come here

    def beta(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        values: np.ndarray = np.where(a > 0, special.betainc(np.maximum(a, 1e-300), b, limit), 1.0)
        return values

    below, rest = saturation - 1, area - saturation + 1  # P(B' <= s - 2) = 1 - I_t(below, rest)
    second = below * (below + 1) / (area * (area + 1)) * beta(below + 2, rest)
    unsaturated = (limit**2 * (1 - beta(below, rest)) + second) / 2
    saturated = limit * beta(saturation, rest) - saturation / (area + 1) * beta(saturation + 1, rest)
    integral: np.ndarray = area * unsaturated + saturation * saturated
    return integral
