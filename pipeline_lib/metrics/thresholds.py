"""Thresholds from scores of normal training images alone, and what their number supports.

The threshold is that of split conformal prediction (Vovk et al. 2005; Lei et al. 2018): with n scores of normal images
and k = ceil((n + 1) (1 - target)), the k-th smallest is exceeded by a new normal image with probability at most
(n + 1 - k) / (n + 1), if new images come from the same source. The scores are out of fold (`client.calibration`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Threshold:
    """A threshold on image scores: above it an image is called defective."""

    value: float
    target_rate: float
    nominal_rate: float  # expected share of normal images above it, over draws of calibration and new images
    upper_bound: float | None  # of that share for this very threshold, with 95 % confidence; None: n supports none
    rank: int  # it is the rank-th smallest of the n scores
    n: int


def conformal_threshold(scores: np.ndarray, target_rate: float) -> Threshold | None:
    """The threshold for a target false-alarm rate from out-of-fold scores (image,) of normal images; None without any.

    With fewer than 1 / target_rate - 1 images it is the largest score, and the nominal rate lies above the target.
    Raises ValueError for a rate outside (0, 1) and for scores that are not finite.
    """
    if not 0 < target_rate < 1:
        raise ValueError(f"a target false-alarm rate lies between 0 and 1, got {target_rate}")
    if not np.isfinite(scores).all():
        raise ValueError("calibration scores must be finite")
    n = len(scores)
    if n == 0:
        return None
    rank = min(n, math.ceil((n + 1) * (1 - target_rate) - 1e-9))
    rank = max(rank, 1)
    bound = clopper_pearson_upper(n - rank, n) if n >= images_for_a_bound(target_rate) else None
    return Threshold(float(np.sort(scores)[rank - 1]), target_rate, (n + 1 - rank) / (n + 1), bound, rank, n)


def images_for_a_bound(target_rate: float, *, confidence: float = CONFIDENCE) -> int:
    """Normal images that a bound needs: the smallest n with (1 - target)^n <= 1 - confidence.

    With fewer, not even the largest score is one. 59 for 5 % with 95 % confidence (Wilks 1941).
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - target_rate) - 1e-9)


def clopper_pearson_upper(count: int, n: int, *, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound of a share, `count` of n observed (Clopper and Pearson 1934).

    For an order statistic it is exact: the share above the k-th smallest of n is Beta(n - k + 1, k), here with
    count = n - k.
    """
    from scipy import stats  # slow to import, and few commands come here

    return 1.0 if count >= n else float(stats.beta.ppf(confidence, count + 1, n - count))


def clopper_pearson_interval(count: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Two-sided interval of a share; None for n = 0."""
    if n == 0:
        return None
    each = 1 - (1 - confidence) / 2
    return 1 - clopper_pearson_upper(n - count, n, confidence=each), clopper_pearson_upper(count, n, confidence=each)


def excess_p_value(threshold: Threshold, false_alarms: int, n_good: int) -> float:
    """Chance of at least so many false alarms among n_good new images if they come from the calibration's source.

    The number is then beta-binomial(n_good, n + 1 - rank, rank), whatever the distribution of the scores; a small
    value says that the test images differ from the training images (drift).
    """
    rank, n = threshold.rank, threshold.n
    from scipy import stats  # slow to import, and few commands come here

    return float(stats.betabinom.sf(false_alarms - 1, n_good, n + 1 - rank, rank))
