"""Image-level metrics: AUROC, average precision, true positive rate at a true negative rate, and their curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.results import MetricValues

TRUE_NEGATIVE_RATES = (0.99, 0.95, 0.9)


@dataclass(frozen=True)
class Curve:
    """Points of a curve; a threshold of NaN stands for none."""

    x: np.ndarray  # float64 (point,)
    y: np.ndarray
    threshold: np.ndarray


def image_metrics(
    label_index: np.ndarray, scores: np.ndarray, *, true_negative_rates: Sequence[float] = TRUE_NEGATIVE_RATES
) -> MetricValues:
    """The metrics of image scores, None where only one class is there; those of pixels are left out.

    label_index: int (image,), 0 good; scores: float (image,), higher is more anomalous. Raises ValueError for scores
    that are not finite.
    """
    defective, scores = _checked(label_index, scores)
    n_defective = int(defective.sum())
    n_good = len(defective) - n_defective
    counts = {"n_good": n_good, "n_defective": n_defective}
    if not (n_good and n_defective):
        return MetricValues(tpr_at_tnr=dict.fromkeys(map(str, true_negative_rates)), **counts)
    from sklearn.metrics import average_precision_score, roc_auc_score  # takes long to import; a cached run needs none

    return MetricValues(
        image_auroc=float(roc_auc_score(defective, scores)),
        image_ap=float(average_precision_score(defective, scores)),
        tpr_at_tnr={
            str(rate): float(np.mean(scores[defective] > threshold_at_tnr(scores[~defective], rate)))
            for rate in true_negative_rates
        },
        **counts,
    )


def threshold_at_tnr(good_scores: np.ndarray, true_negative_rate: float) -> float:
    """The lowest good score that leaves at least this share of the good images at or below it.

    An image is called defective when its score is above the threshold.
    """
    rank = max(math.ceil(true_negative_rate * len(good_scores) - 1e-9), 1)  # 0.95 x 60 is 57, not 57.0...01
    return float(np.sort(good_scores)[rank - 1])


def roc(label_index: np.ndarray, scores: np.ndarray) -> Curve | None:
    """True positive rate (y) against false positive rate (x); None where only one class is there."""
    defective, scores = _checked(label_index, scores)
    if defective.all() or not defective.any():
        return None
    from sklearn.metrics import roc_curve

    x, y, threshold = roc_curve(defective, scores)
    return Curve(x, y, np.where(np.isinf(threshold), np.nan, threshold))


def precision_recall(label_index: np.ndarray, scores: np.ndarray) -> Curve | None:
    """Precision (y) against recall (x), recall ascending; None where only one class is there."""
    defective, scores = _checked(label_index, scores)
    if defective.all() or not defective.any():
        return None
    from sklearn.metrics import precision_recall_curve

    precision, recall, threshold = precision_recall_curve(defective, scores, drop_intermediate=True)
    return Curve(recall[::-1], precision[::-1], np.append(threshold, np.nan)[::-1])


def _checked(label_index: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    defective, scores = np.asarray(label_index) != 0, np.asarray(scores, np.float64)
    if defective.shape != scores.shape or scores.ndim != 1:
        raise ValueError(f"labels {defective.shape} and scores {scores.shape} must be one-dimensional and as many")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} image scores are not finite")
    return defective, scores
