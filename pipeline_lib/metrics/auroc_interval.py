"""95 % interval of an image AUROC from the images' scores: the further end of DeLong's and of Newcombe's.

DeLong et al. (1988) estimate the variance from the data, whatever the shape of the scores, but with few images near 1
it comes out far too small: none at all where every defective image is above every good one. Newcombe's method (2006)
takes it from the value and the counts, and has an interval there, but assumes a shape: where a part of the defects is
not seen at all, it is too narrow. Each covers what the other misses (docs/method.md has the simulation). DeLong's is
taken on the logit scale with Student's quantile; images of one group are not independent (Obuchowski 1997).
"""

from __future__ import annotations

import math

import numpy as np

from pipeline_lib.metrics.intervals import newcombe_interval


def auroc_interval(
    label_index: np.ndarray, scores: np.ndarray, group_index: np.ndarray | None = None
) -> tuple[float, float] | None:
    """None where a class is missing.

    label_index: int (image,), 0 good; scores: float (image,); group_index: int (image,), equal for images of one group,
    None where each stands alone.
    """
    defective = label_index != 0
    if defective.all() or not defective.any():
        return None
    groups = np.arange(len(scores)) if group_index is None else group_index
    good, bad = scores[~defective], scores[defective]
    of_bad, of_good = _share_below(bad, good), 1 - _share_below(good, bad)  # each image's own share of pairs in order
    area = float(of_bad.mean())
    bad_sums, good_sums = _by_group(of_bad - area, groups[defective]), _by_group(of_good - area, groups[~defective])
    parts = [_variance_of_mean(sums, n) for sums, n in ((bad_sums, len(bad)), (good_sums, len(good)))]
    both = bad_sums.keys() & good_sums.keys()
    covariance = sum(bad_sums[group] * good_sums[group] for group in both) / (len(bad) * len(good))
    n_groups = len(bad_sums.keys() | good_sums.keys())
    variance = sum(parts) + 2 * covariance * n_groups / max(1, n_groups - 1)
    alone = float(of_bad.var() / max(1, len(bad) - 1) + of_good.var() / max(1, len(good) - 1))
    inflation = variance / alone if alone else math.inf
    newcombe = newcombe_interval(
        area,
        len(good) / min(max(1.0, inflation), len(good) / len(good_sums)),
        len(bad) / min(max(1.0, inflation), len(bad) / len(bad_sums)),
    )
    if newcombe is None or not variance > 0 or min(len(bad_sums), len(good_sums)) < 2:
        return newcombe
    degrees = sum(parts) ** 2 / sum(
        part**2 / (len(sums) - 1) for part, sums in zip(parts, (bad_sums, good_sums), strict=True)
    )
    low, high = _on_logit_scale(area, math.sqrt(variance), degrees)
    return min(low, newcombe[0]), max(high, newcombe[1])


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` below each score, ties by half, float64 (score,)."""
    others = np.sort(others)
    below = np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")
    share: np.ndarray = below / (2 * len(others))
    return share


def _by_group(deviations: np.ndarray, groups: np.ndarray) -> dict[int, float]:
    names, position = np.unique(groups, return_inverse=True)
    return dict(zip(names.tolist(), np.bincount(position, weights=deviations).tolist(), strict=True))


def _variance_of_mean(sums: dict[int, float], n: int) -> float:
    """From the sums of the deviations of each of the groups, which are independent."""
    return sum(value**2 for value in sums.values()) / n**2 * len(sums) / max(1, len(sums) - 1)


def _on_logit_scale(area: float, error: float, degrees: float) -> tuple[float, float]:
    from scipy import special  # slow to import, and few commands come here

    if not 0 < area < 1:
        return area, area
    middle = special.logit(area)
    half = float(special.stdtrit(degrees, 0.975)) * error / (area * (1 - area))
    return float(special.expit(middle - half)), float(special.expit(middle + half))
