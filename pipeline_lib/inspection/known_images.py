"""What a model's decisions are worth, by the images that its run knows: test images, and normal ones out of fold."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from pipeline_lib.inspection.decisions import is_close
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.metrics.decisions import Above

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
