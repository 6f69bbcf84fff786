"""95 % intervals from counts alone, of an AUROC and of rates."""

from __future__ import annotations

import math
from collections.abc import Callable

Z95 = 1.959963984540054


def newcombe_interval(auroc: float, n_good: float, n_defective: float, *, z: float = Z95) -> tuple[float, float] | None:
    """Interval of an AUROC (Newcombe 2006, Statistics in Medicine 25:559, method 5); None where a class is empty.

    The values that lie at most z of their own standard errors from the measured one, with the standard error of
    Hanley and McNeil (1982) and (n_good + n_defective) / 2 - 1 in place of both class sizes less one. It stays wider
    than a point where the AUROC is exactly 1. Counts may be those that dependent images are worth.
    """
    if not (n_good and n_defective):
        return None

    def too_far(value: float) -> bool:
        return abs(auroc - value) > z * math.sqrt(_auroc_variance(value, n_good, n_defective))

    return _edge(auroc, 0.0, too_far), _edge(auroc, 1.0, too_far)


def share_interval(share: float, n: int) -> tuple[float, float] | None:
    """Interval of a share of n images (Wilson 1927); None for n = 0."""
    if not n:
        return None
    count = round(share * n)
    share, spread = count / n, 2 * (n + Z95**2)
    center = (2 * n * share + Z95**2) / spread
    reach = Z95 / spread * math.sqrt(4 * n * share * (1 - share) + Z95**2)
    return center - reach if count else 0.0, center + reach if count < n else 1.0


def _auroc_variance(auroc: float, n_good: float, n_defective: float) -> float:
    others = (n_good + n_defective) / 2 - 1
    spread = 1 + others * (1 - auroc) / (2 - auroc) + others * auroc / (1 + auroc)
    return max(0.0, auroc * (1 - auroc) * spread / (n_good * n_defective))


def _edge(inside: float, outside: float, too_far: Callable[[float], bool]) -> float:
    """Bisection between a value that belongs to the interval and an end of [0, 1] that may not."""
    if not too_far(outside):
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        if too_far(middle):
            outside = middle
        else:
            inside = middle
    return inside
