"""Thresholds from scores of normal training images alone, and what their number supports.

The threshold is that of split conformal prediction (Vovk et al. 2005; Lei et al. 2018): with n scores of normal images
and k = ceil((n + 1) (1 - target)), the k-th smallest is exceeded by a new normal image with probability at most
(n + 1 - k) / (n + 1), if new images come from the same source. Where several images show one part, one place or one
tile, the groups are what is drawn, and n is their number: each image counts as its share of its group, and the promise
is for an image of a new group (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data").
With one image a group both are the same. The scores are out of fold (`client.calibration`).

With few images two neighbouring scores have nominal rates far apart, 3.1 and 6.3 % with 31 images. Interpolated, the
threshold lies between the two by as much as the target lies between their rates (Beran and Hall 1993, "Interpolated
nonparametric prediction intervals and confidence intervals"). Where the share of images above a score is a convex
function of it, as wherever their density falls with the score, the rate to be expected is at most the target: by
convexity it is at most the mean of the two rates with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from data_contracts.config import DecisionConfig, Promise
from data_contracts.errors import ConfigError

CONFIDENCE = 0.95
CLIENTS_NAMED = 5
_ROUNDING = 1e-9  # shares of groups do not add up exactly


@dataclass(frozen=True)
class Threshold:
    """A threshold on image scores: above it an image is called defective."""

    value: float
    target_rate: float
    nominal_rate: float  # expected share of normal images above it, over draws of calibration and new images
    upper_bound: float  # of that share with 95 % confidence; of an interpolated threshold that of the score below it
    groups_above: float  # of the n_groups: each counts with the share of its scores above; interpolated, too
    n_groups: int  # an image that stands alone is a group
    n: int  # scores
    grouped: bool = False  # whether images were said to be of groups
    by_client: tuple[tuple[str, int], ...] = ()  # (client, its scores), where they are of several

    def promise(self) -> str:
        """What it promises, of how many images, of whom, on which condition."""
        of_groups = f" of {self.n_groups} groups" if self.grouped else ""
        return (
            f"threshold from {self.n} normal images{of_groups}{self._of_clients()}: of good images about "
            f"{100 * self.nominal_rate:.1f} % are called defective, at most {100 * self.upper_bound:.1f} % with "
            f"{100 * CONFIDENCE:g} % confidence, {condition(grouped=self.grouped)}"
        )

    def _of_clients(self) -> str:
        if len(self.by_client) > CLIENTS_NAMED:
            return f" of {len(self.by_client)} clients"
        of_each = ", ".join(f"{n} of {client}" for client, n in self.by_client)
        return f" ({of_each})" if of_each else ""

    def shortfall(self) -> str:
        """Why its nominal rate is above the one that was asked for, and what is needed; empty where it is not."""
        if self.nominal_rate <= self.target_rate + 1e-12:
            return ""
        what = "groups of normal images" if self.grouped else "normal images"
        return (
            f"{self.n_groups} {what} are too few for a nominal rate of {100 * self.target_rate:g} %: the threshold is "
            f"their largest score; {math.ceil(1 / self.target_rate - 1 - 1e-9)} are needed, or a higher target"
        )


def decision_threshold(
    scores: np.ndarray, target_rate: float, *, promise: Promise = "rate", groups: np.ndarray | None = None
) -> Threshold | None:
    """The threshold for a target false-alarm rate from out-of-fold scores (image,) of normal images; None without any.

    promise: whether the target is the nominal rate (interpolated), a limit of it, or its upper bound. groups (image,):
    equal numbers for images of one group, -1 for one that stands alone, as all do where it is not given. With fewer
    than 1 / target_rate - 1 groups the threshold of a rate is the largest score, and the nominal rate lies above the
    target.
    Raises ValueError for a rate outside (0, 1) and for scores that are not finite; ConfigError, with the number that is
    needed, where the groups are too few for a bound.
    """
    if not 0 < target_rate < 1:
        raise ValueError(f"a target false-alarm rate lies between 0 and 1, got {target_rate}")
    if not np.isfinite(scores).all():
        raise ValueError("calibration scores must be finite")
    n = len(scores)
    if n == 0:
        return None
    shares = group_shares(np.full(n, -1) if groups is None else groups)
    n_groups = round(float(shares.sum()))
    if promise == "bound":
        refuse_too_few(n_groups, target_rate, grouped=groups is not None)
    order = np.argsort(scores, kind="stable")
    above = np.append(np.cumsum(shares[order][:0:-1])[::-1], 0.0)  # groups above the k-th smallest score
    level = target_rate * (n_groups + 1) - 1  # groups above the threshold at which the rate is the target
    is_low_enough = _bounds(above, n_groups) <= target_rate if promise == "bound" else above <= level + _ROUNDING
    rank = int(np.argmax(is_low_enough)) if is_low_enough.any() else n - 1
    value, groups_above, at_most = float(scores[order[rank]]), float(above[rank]), float(above[rank])
    if promise == "interpolated" and rank > 0 and groups_above < level - _ROUNDING:
        at_most = float(above[rank - 1])
        weight = (at_most - level) / (at_most - groups_above)
        value = (1 - weight) * float(scores[order[rank - 1]]) + weight * value
        groups_above = level
    return Threshold(
        value=value,
        target_rate=target_rate,
        nominal_rate=(groups_above + 1) / (n_groups + 1),
        upper_bound=clopper_pearson_upper(at_most, n_groups),
        groups_above=groups_above,
        n_groups=n_groups,
        n=n,
        grouped=groups is not None,
    )


def condition(*, grouped: bool) -> str:
    """Of what a threshold promises."""
    if grouped:
        return "if new images are of groups like these, as of parts never seen"
    return "if new images are like these, and each of these shows another part (if several show one: dataset.group)"


def group_shares(groups: np.ndarray) -> np.ndarray:
    """What each image is of its group, float64 (image,): 1 / its number of images, 1 for one that stands alone (-1)."""
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shares: np.ndarray = np.where(groups < 0, 1.0, 1.0 / sizes[member])
    return shares


def groups_for_a_bound(target_rate: float, *, confidence: float = CONFIDENCE) -> int:
    """Groups that a bound at the target needs: the smallest n with (1 - target)^n <= 1 - confidence.

    With fewer, not even the largest score has one: 59 at 5 % with 95 % confidence, and then it is the largest score
    that has it (Wilks 1941).
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - target_rate) - 1e-9)


def least_rate(n_groups: int, promise: Promise) -> float:
    """The lowest target that so many groups of normal images bear, rounded up to a tenth of a per cent."""
    least = 1 - (1 - CONFIDENCE) ** (1 / max(n_groups, 1)) if promise == "bound" else 1 / (n_groups + 1)
    return math.ceil(1000 * least - 1e-9) / 1000


def refuse_too_few(n_groups: int, target_rate: float, *, grouped: bool, of: str = "there are") -> None:
    """Raise ConfigError where so many groups of normal images bear no bound at the target."""
    needed = groups_for_a_bound(target_rate)
    if n_groups < needed:
        what = "groups of normal images" if grouped else "normal images"
        raise ConfigError(
            f"decision.promise: a bound of {100 * target_rate:g} % with {100 * CONFIDENCE:g} % confidence needs "
            f"{needed} {what}, {of} {n_groups}; take more, raise decision.target_false_alarm_rate to "
            f"{least_rate(n_groups, 'bound'):g}, or set decision.promise: rate"
        )


def refuse_unbounded(images: pd.DataFrame, wanted: DecisionConfig, group_of: Mapping[str, str] | None = None) -> None:
    """Raise ConfigError where a bound is asked of a category with too few normal images, before they are scored.

    images: image_id and category of the training images whose scores a threshold is made of; group_of: image_id ->
    group, None without dataset.group.
    """
    if wanted.promise != "bound" or wanted.blocks == 0:
        return
    names = [(group_of or {}).get(image_id, image_id) for image_id in images["image_id"]]
    for category, n_groups in images.assign(group=names).groupby("category")["group"].nunique().items():
        refuse_too_few(
            int(n_groups), wanted.target_false_alarm_rate, grouped=group_of is not None, of=f"{category} has"
        )


def clopper_pearson_upper(count: float, n: float, *, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound of a share, `count` of n observed (Clopper and Pearson 1934).

    For an order statistic it is exact: the share above the k-th smallest of n is Beta(n - k + 1, k), here with
    count = n - k. A count that is not whole is a sum of shares, which varies less than one of whole numbers.
    """
    return 1.0 if count >= n else float(_bounds(np.array([count]), n, confidence=confidence)[0])


def _bounds(counts: np.ndarray, n: float, *, confidence: float = CONFIDENCE) -> np.ndarray:
    bounds: np.ndarray = special.betaincinv(counts + 1, n - counts, confidence)  # scipy.stats is slow to import
    return bounds


def clopper_pearson_interval(count: float, n: float, *, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Two-sided interval of a share; None for n = 0."""
    if n == 0:
        return None
    each = 1 - (1 - confidence) / 2
    return 1 - clopper_pearson_upper(n - count, n, confidence=each), clopper_pearson_upper(count, n, confidence=each)


def excess_p_value(threshold: Threshold, groups_above: float, n_groups: int) -> float:
    """Chance that at least so many of new groups lie above if they come from the calibration's source.

    groups_above: of the n_groups of new normal images, each with the share of its images that are above. The number is
    then beta-binomial, whatever the distribution of the scores, and varies less where shares are not whole; a small
    value says that the test images differ from the training images (drift).
    """
    fewer = np.arange(math.floor(groups_above + _ROUNDING))
    a, b = threshold.groups_above + 1, threshold.n_groups - threshold.groups_above
    ways = -np.log(n_groups + 1) - special.betaln(n_groups - fewer + 1, fewer + 1)
    chances = np.exp(ways + special.betaln(fewer + a, n_groups - fewer + b) - special.betaln(a, b))
    return float(np.clip(1.0 - chances.sum(), 0.0, 1.0))  # as scipy.stats.betabinom, which is slow to import
