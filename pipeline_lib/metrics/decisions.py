"""Decisions on test images: the threshold of each category, what it promises, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from data_contracts.results import CategoryMetrics, Decision, MetricsDocument, ThresholdResult
from pipeline_lib.metrics.category import half_of
from pipeline_lib.metrics.thresholds import (
    CONFIDENCE,
    Threshold,
    clopper_pearson_interval,
    conformal_threshold,
    excess_p_value,
    images_for_a_bound,
)


def add_decisions(
    documents: Mapping[str, MetricsDocument],
    calibration: pd.DataFrame,
    scores: pd.DataFrame,
    target_rate: float,
    *,
    group_of: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Fill in `decision` of every category: thresholds from `calibration`, rates on the document's test images.

    documents: subset (all | development | report) -> document; calibration: CALIBRATION_SCORES; scores: IMAGE_SCORES
    of all of test; group_of: image_id -> group of the images that do not stand alone. A category without calibration
    scores keeps None.
    """
    for subset, document in documents.items():
        decide_categories(document.categories, calibration, scores, target_rate, subset=subset, group_of=group_of)


def decide_categories(
    categories: Mapping[str, CategoryMetrics],
    calibration: pd.DataFrame,
    scores: pd.DataFrame,
    target_rate: float,
    *,
    subset: str,
    group_of: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Fill in `decision` of every category that has calibration scores, from the test images of one subset."""
    chosen = scores
    if subset != "all":
        own_half = [
            half_of(digest, group_of.get(image_id)) == subset
            for image_id, digest in zip(scores.image_id, scores.sha256, strict=True)
        ]
        chosen = scores[own_half]
    for category, values in categories.items():
        own = calibration[calibration.category == category]
        if len(own):
            values.decision = category_decision(own, chosen[chosen.category == category], target_rate)


def category_decision(calibration: pd.DataFrame, scores: pd.DataFrame, target_rate: float) -> Decision:
    """One category: all clients' calibration scores together, and each client's by themselves."""
    threshold = conformal_threshold(calibration.score.to_numpy(float), target_rate)
    by_client = {
        str(client): threshold_result(conformal_threshold(own.score.to_numpy(float), target_rate), scores)
        for client, own in calibration.groupby("client_id", sort=True)
    }
    return Decision(**threshold_result(threshold, scores).model_dump(), by_client=by_client)


def threshold_result(threshold: Threshold | None, scores: pd.DataFrame) -> ThresholdResult:
    """What a threshold promises, and what it does on test images (columns label_index and score)."""
    if threshold is None:
        return ThresholdResult(note="no calibration scores: no threshold")
    above = scores.score.to_numpy(float) > threshold.value
    good = scores.label_index.to_numpy(np.int64) == 0
    false_alarms, n_good = int((above & good).sum()), int(good.sum())
    found, n_defective = int((above & ~good).sum()), int((~good).sum())
    return ThresholdResult(
        threshold=threshold.value,
        target_rate=threshold.target_rate,
        nominal_rate=threshold.nominal_rate,
        upper_bound=threshold.upper_bound,
        confidence=CONFIDENCE,
        n_calibration=threshold.n,
        note=_note(threshold),
        false_alarms=false_alarms,
        n_good=n_good,
        realised_rate=false_alarms / n_good if n_good else None,
        realised_ci95=clopper_pearson_interval(false_alarms, n_good),
        excess_p_value=excess_p_value(threshold, false_alarms, n_good) if n_good else None,
        found=found,
        n_defective=n_defective,
        found_rate=found / n_defective if n_defective else None,
        found_ci95=clopper_pearson_interval(found, n_defective),
    )


def _note(threshold: Threshold) -> str:
    needed, target = images_for_a_bound(threshold.target_rate), f"{100 * threshold.target_rate:g} %"
    notes = []
    if threshold.nominal_rate > threshold.target_rate + 1e-12:
        notes.append(
            f"{threshold.n} normal images are too few for a nominal rate of {target}: the threshold is their largest "
            "score"
        )
    if threshold.upper_bound is None:
        notes.append(
            f"no bound: {threshold.n} normal images, and at least {needed} are needed for {100 * CONFIDENCE:g} % "
            f"confidence at {target}"
        )
    return "; ".join(notes)
