"""Decisions on test images: the threshold of each category, what it promises, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from data_contracts.config import DecisionConfig
from data_contracts.errors import ConfigError
from data_contracts.results import CategoryMetrics, Decision, MetricsDocument, ThresholdResult
from pipeline_lib.dataset.groups.halves import half_of
from pipeline_lib.metrics.thresholds import (
    CONFIDENCE,
    Threshold,
    clopper_pearson_interval,
    decision_threshold,
    excess_p_value,
    group_shares,
)

Groups = Mapping[str, str]
"""image_id -> group of the images that do not stand alone."""
NO_GROUPS: Groups = MappingProxyType({})


def add_decisions(
    documents: Mapping[str, MetricsDocument],
    calibration: pd.DataFrame,
    scores: pd.DataFrame,
    wanted: DecisionConfig,
    *,
    group_of: Groups = NO_GROUPS,
) -> None:
    """Fill in `decision` of every category: thresholds from `calibration`, rates on the document's test images.

    documents: subset (all | development | report) -> document; calibration: CALIBRATION_SCORES; scores: IMAGE_SCORES
    of all of test. A category without calibration scores keeps None.
    """
    for subset, document in documents.items():
        decide_categories(document.categories, calibration, scores, wanted, subset=subset, group_of=group_of)


def decide_categories(
    categories: Mapping[str, CategoryMetrics],
    calibration: pd.DataFrame,
    scores: pd.DataFrame,
    wanted: DecisionConfig,
    *,
    subset: str,
    group_of: Groups = NO_GROUPS,
) -> None:
    """Fill in `decision` of every category that has calibration scores, from the test images of one subset."""
    groups = [group_of.get(image_id) for image_id in scores.image_id]
    chosen = scores.assign(group=[group or image for group, image in zip(groups, scores.image_id, strict=True)])
    if subset != "all":
        halves = [half_of(digest, group) for digest, group in zip(scores.sha256, groups, strict=True)]
        chosen = chosen[np.array(halves, dtype=object) == subset]
    for category, values in categories.items():
        own = calibration[calibration.category == category]
        if len(own):
            values.decision = category_decision(own, chosen[chosen.category == category], wanted)


def category_decision(calibration: pd.DataFrame, scores: pd.DataFrame, wanted: DecisionConfig) -> Decision:
    """One category: all clients' calibration scores together, and each client's by themselves."""
    by_client = {
        str(client): _decision(own, scores, wanted) for client, own in calibration.groupby("client_id", sort=True)
    }
    return Decision(**_decision(calibration, scores, wanted).model_dump(), by_client=by_client)


def calibrated_threshold(calibration: pd.DataFrame, wanted: DecisionConfig) -> Threshold | None:
    """The threshold from CALIBRATION_SCORES of one category, by their groups where they have some.

    None without scores. Raises ConfigError as `decision_threshold` does.
    """
    groups = calibration["group"].to_numpy(np.int64) if "group" in calibration else None
    found = decision_threshold(
        calibration["score"].to_numpy(float), wanted.target_false_alarm_rate, promise=wanted.promise, groups=groups
    )
    if found is None or "client_id" not in calibration or calibration["client_id"].nunique() < 2:
        return found
    counts = calibration["client_id"].value_counts().sort_index()
    return replace(found, by_client=tuple((str(client), int(n)) for client, n in counts.items()))


def _decision(calibration: pd.DataFrame, scores: pd.DataFrame, wanted: DecisionConfig) -> ThresholdResult:
    try:
        threshold = calibrated_threshold(calibration, wanted)
    except ConfigError as error:
        return ThresholdResult(promise=wanted.promise, note=f"no threshold: {error}")
    return threshold_result(threshold, scores).model_copy(update={"promise": wanted.promise})


def threshold_result(threshold: Threshold | None, scores: pd.DataFrame) -> ThresholdResult:
    """What a threshold promises, and what it does on test images (columns label_index, score and group)."""
    if threshold is None:
        return ThresholdResult(note="no calibration scores: no threshold")
    is_good = scores.label_index.to_numpy(np.int64) == 0
    good, defective = Above.of(threshold.value, scores[is_good]), Above.of(threshold.value, scores[~is_good])
    return ThresholdResult(
        threshold=threshold.value,
        target_rate=threshold.target_rate,
        nominal_rate=threshold.nominal_rate,
        upper_bound=threshold.upper_bound,
        confidence=CONFIDENCE,
        n_calibration=threshold.n,
        n_groups=threshold.n_groups if threshold.grouped else None,
        note=threshold.shortfall(),
        false_alarms=good.images,
        n_good=good.n_images,
        realised_rate=good.rate,
        realised_ci95=good.interval(),
        excess_p_value=excess_p_value(threshold, good.groups, good.n_groups) if good.n_groups else None,
        found=defective.images,
        n_defective=defective.n_images,
        found_rate=defective.rate,
        found_ci95=defective.interval(),
    )


@dataclass(frozen=True)
class Above:
    """Test images of one label that are above a threshold, and their groups, each with its share of them."""

    images: int
    n_images: int
    groups: float
    n_groups: int

    @classmethod
    def of(cls, threshold: float, scores: pd.DataFrame) -> Above:
        """Of images with the columns score and group."""
        return cls.among(scores, scores.score.to_numpy(float) > threshold)

    @classmethod
    def among(cls, scores: pd.DataFrame, above: np.ndarray) -> Above:
        """Of images with the column group, where it is said (image,) which of them are above."""
        numbers, names = pd.factorize(scores.group)
        return cls(int(above.sum()), len(scores), float(group_shares(numbers)[above].sum()), len(names))

    @property
    def rate(self) -> float | None:
        return self.images / self.n_images if self.n_images else None

    def interval(self) -> tuple[float, float] | None:
        """Of the rate, as if each group were one image: images of one group say next to nothing more."""
        if not self.n_images:
            return None
        return clopper_pearson_interval(self.images * self.n_groups / self.n_images, self.n_groups)
