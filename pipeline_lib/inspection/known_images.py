"""What a model's decisions are worth, by the images that its run knows: test images, and normal ones out of fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline_lib.inspection.decisions import is_close, margin
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.metrics.decisions import Above
from pipeline_lib.metrics.thresholds import least_rate

FEWER_ALARMS, MORE_ALARMS = 0.2, 4.0
"""Another rate that is offered, as a multiple of the one in use."""

HIGHEST_RATE = 0.5
Interval = tuple[float, float] | None


def told(model: RunModel, category: str) -> list[str]:
    """What is known at the category's threshold, a sentence each: false alarms, misses, and what is to look at."""
    return [text for text in (model.promised(category), missed(model, category), looked_at(model, category)) if text]


def missed(model: RunModel, category: str) -> str:
    """What the category's threshold may miss, in words, by the run's own test images; empty without a threshold."""
    threshold = model.threshold(category)
    if threshold is None:
        return ""
    found = _found(model, category, threshold)
    if found is None:
        return model.named(
            category,
            "how many defects are missed is not known: the run had no known defective images; put some into its data "
            "set, a folder for each kind, then run and score again",
        )
    n_found, n, interval = found
    said = f"of {n} known defective test images this threshold finds {n_found} ({_share(n_found, n, interval)})"
    return model.named(category, f"{said}, and misses {n - n_found}")


def looked_at(model: RunModel, category: str) -> str:
    """How many of the known images would be called defective or close, in words; empty where none are known.

    Test images with the interval of their share; normal training images by their out-of-fold scores, without one: the
    threshold is made of these.
    """
    threshold = model.threshold(category)
    if threshold is None:
        return ""
    parts = []
    known = _test_images(model, category)
    for what, own in (
        ("known defective test images", known[known.label_index != 0]),
        ("good test images", known[known.label_index == 0]),
    ):
        if len(own):
            both = Above.among(own, _to_look_at(own.score, threshold))
            parts.append(f"{both.images} of {len(own)} {what} ({_share(both.images, len(own), both.interval())})")
    if model.calibration is not None:
        normal = model.calibration[model.calibration.category == category]
        count = int(_to_look_at(normal.score, threshold).sum())
        if len(normal):
            parts.append(f"{count} of {len(normal)} normal training images, scored without themselves")
    return model.named(category, f"to look at, as defective or close, would be {'; '.join(parts)}") if parts else ""


def known_misses(model: RunModel, categories: Sequence[str]) -> list[str]:
    """Paths of the known defective test images that are not above the threshold, the lowest first."""
    found: list[tuple[float, str]] = []
    for category in categories:
        if (threshold := model.threshold(category)) is not None:
            known = _test_images(model, category)
            own = known[(known.label_index != 0) & ~(known.score > threshold)]
            found += [(margin(score, threshold), path) for score, path in zip(own.score, own.path, strict=True)]
    return [path for _, path in sorted(found)]


def other_rates(model: RunModel, categories: Sequence[str]) -> tuple[float | None, float | None]:
    """A clearly lower and a clearly higher false-alarm rate that the normal images of all categories bear.

    None where there is none, and for thresholds that are not made of normal images.
    """
    found = [] if model.fixed_threshold is not None else [model.calibrated(category) for category in categories]
    least = max((least_rate(one.n_groups, model.promise) for one in found if one is not None), default=1.0)
    in_use = max(model.target_rate, least)
    lower = max(round(FEWER_ALARMS * in_use, 3), least)
    higher = min(round(MORE_ALARMS * in_use, 3), HIGHEST_RATE)
    return lower if lower <= in_use / 2 else None, higher if higher >= 2 * in_use else None


def found_at(model: RunModel, rate: float, categories: Sequence[str]) -> tuple[int, int]:
    """Of the known defective test images of the categories: those that another rate's threshold finds, and all."""
    other = replace(model, target_rate=rate)
    thresholds = [(category, other.threshold(category)) for category in categories]
    counts = [found[:2] for name, value in thresholds if value is not None and (found := _found(other, name, value))]
    return sum(found for found, _ in counts), sum(n for _, n in counts)


def _found(model: RunModel, category: str, threshold: float) -> tuple[int, int, Interval] | None:
    """Of the run's defective test images: found, in all, and the interval of the share; None where not known."""
    known = None if model.metrics is None else model.metrics.categories.get(category)
    decision = None if known is None else known.decision
    if decision is not None and decision.n_defective and math.isclose(decision.threshold or 0.0, threshold):
        return decision.found, decision.n_defective, decision.found_ci95
    images = _test_images(model, category)
    own = images[images.label_index != 0]
    above = Above.of(threshold, own)
    return (above.images, above.n_images, above.interval()) if len(own) else None


def _test_images(model: RunModel, category: str) -> pd.DataFrame:
    """label_index, path, score and group of the run's test images; none where the run does not hold their scores."""
    if model.scores is None:
        return pd.DataFrame({"label_index": [], "path": [], "score": [], "group": []})
    return model.scores[model.scores.category == category]


def _to_look_at(scores: pd.Series, threshold: float) -> np.ndarray:
    """bool (image,): by the score alone; what has a note is not among them."""
    return np.array([score > threshold or is_close(score, threshold) for score in scores], dtype=bool)


def _share(count: int, n: int, interval: Interval) -> str:
    """83 %, with 95 % confidence 52 to 98 %."""
    low_high = f", with 95 % confidence {100 * interval[0]:.0f} to {100 * interval[1]:.0f} %" if interval else ""
    return f"{100 * count / n:.0f} %{low_high}"
