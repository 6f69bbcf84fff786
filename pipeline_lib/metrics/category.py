"""The metrics of a category, split by defect, test folder and defect group, and the tables made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_contracts.results import HEADLINES, METRICS, CategoryMetrics, MetricValues
from data_contracts.tables import CURVES, METRICS_TABLE
from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.dataset.groups.halves import half_of
from pipeline_lib.metrics.bootstrap import GRID_SCORES, ImageSample, confidence_intervals, group_numbers
from pipeline_lib.metrics.image_metrics import image_metrics, precision_recall, roc
from pipeline_lib.metrics.spro.evaluate import evaluate_pixels
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage, PixelMetrics, SproCurve, SubsetKey
from pipeline_lib.metrics.unmarked import unmarked_image_auroc

DEFECT, FOLDER, GROUP = "defect", "folder", "group"


@dataclass(frozen=True)
class CategoryResult:
    """One category: the metrics, the rows of curves.parquet and what bootstraps start from."""

    category: str
    metrics: CategoryMetrics
    curves: pd.DataFrame  # data_contracts.tables.CURVES
    sample: ImageSample
    unmasked: list[str]  # defective images without a mask, where others have one: left out of the pixel metrics


def compute_metrics(
    images: Sequence[EvaluationImage],
    *,
    fpr_limits: Sequence[float],
    bootstrap: int,
    rng: np.random.Generator,
    defect_groups: Mapping[str, str],
) -> CategoryResult:
    """All metrics of one category's test images.

    `bootstrap` is the number of resamples for the 95 % intervals, 0 for none. `defect_groups` maps a defect name or
    else a test folder to a group. Every split is measured together with all good images.
    Raises ImageError for maps and masks that do not fit, ValueError for images of several categories or image scores
    that are not finite.
    """
    categories = sorted({image.category for image in images})
    if len(categories) > 1:
        raise ValueError(f"metrics are computed for one category at a time, got {', '.join(categories)}")
    category = "".join(categories)

    def channel_subsets(image: EvaluationImage, channel: DefectChannel) -> list[SubsetKey]:
        keys = [(DEFECT, channel.defect_name), (FOLDER, image.folder)]
        group = defect_groups.get(channel.defect_name, defect_groups.get(image.folder))
        return keys if group is None else [*keys, (GROUP, group)]

    pixels = evaluate_pixels(
        images, fpr_limits=fpr_limits, subsets_of=channel_subsets, grid_scores=GRID_SCORES if bootstrap else 0
    )
    members: dict[SubsetKey, set[int]] = {}
    for position, image in enumerate(images):
        for key in _image_subsets(image, pixels.image_subsets[position], defect_groups):
            members.setdefault(key, set()).add(position)
    labels = np.array([image.label_index for image in images], np.int64)
    scores = np.array([image.score for image in images], np.float64)
    groups = group_numbers([image.group for image in images])

    def sample_of(key: SubsetKey, chosen: np.ndarray) -> ImageSample:
        counts = pixels.counts.get(key)
        ids = tuple(images[i].image_id for i in chosen)
        own_groups = None if groups is None else groups[chosen]
        return ImageSample(ids, labels[chosen], scores[chosen], counts and counts.of_images(chosen), own_groups)

    sample = sample_of(WHOLE, np.arange(len(images)))
    ci95 = confidence_intervals(sample, resamples=bootstrap, rng=rng)
    split_seed = int(rng.integers(2**63))  # one for all splits: equal ones, such as a defect and its folder, stay equal

    def values(key: SubsetKey) -> MetricValues:
        chosen = np.flatnonzero([label == 0 or i in members[key] for i, label in enumerate(labels)])
        found = pixels.by_subset.get(key, PixelMetrics.undefined(fpr_limits))
        split_rng = np.random.default_rng(split_seed)
        intervals = confidence_intervals(sample_of(key, chosen), resamples=bootstrap, rng=split_rng)
        unmarked = unmarked_image_auroc(labels[chosen], pixels.highest_unmarked[chosen])
        return _metric_values(labels[chosen], scores[chosen], found, intervals, unmarked)

    def split(scope: str) -> dict[str, MetricValues]:
        return {name: values((kind, name)) for kind, name in sorted(members) if kind == scope}

    whole, unmarked = pixels.by_subset[WHOLE], unmarked_image_auroc(labels, pixels.highest_unmarked)
    metrics = CategoryMetrics(
        **_metric_values(labels, scores, whole, ci95, unmarked).model_dump(),
        by_defect=split(DEFECT),
        by_folder=split(FOLDER),
        by_group=split(GROUP),
        auc_spro_weighted=_limit_keys(whole.auc_spro_weighted) if whole.has_weights else None,
        bad_saturation_channels=whole.bad_saturation_channels,
    )
    curves = curve_rows(category, labels, scores, whole.curve)
    return CategoryResult(category, metrics, curves, sample, pixels.unmasked)


def mean_metrics(categories: Iterable[MetricValues]) -> MetricValues:
    """The mean over categories of what is defined; the numbers of images are sums.

    Its intervals follow from the categories' own, see `mean_interval`.
    """
    every = list(categories)

    def by_key(name: str) -> dict[str, float | None]:
        keys = dict.fromkeys(key for values in every for key in getattr(values, name))
        return {key: _mean(getattr(values, name).get(key) for values in every) for key in keys}

    return MetricValues(
        **{metric.field: _mean(metric.of(values) for values in every) for metric in METRICS if not metric.part},
        auc_spro=by_key("auc_spro"),
        auc_spro_chance=by_key("auc_spro_chance"),
        tpr_at_tnr=by_key("tpr_at_tnr"),
        n_good=sum(values.n_good for values in every),
        n_defective=sum(values.n_defective for values in every),
        ci95={
            metric.key: mean_interval(
                [(value, metric.interval(values)) for values in every if (value := metric.of(values)) is not None]
            )
            for metric in HEADLINES
            if any(values.ci95 for values in every)
        },
    )


def mean_interval(found: Sequence[tuple[float, tuple[float, float] | None]]) -> tuple[float, float] | None:
    """95 % interval of the mean of independent values, each (value, its own 95 % interval).

    The distances to the ends add up in squares, below and above apart (Zou and Donner 2008, Statistics in Medicine
    27:1693, eq. 3): test images of different categories are resampled independently. None without values, and where one
    has no interval.
    """
    if not found or any(interval is None for _, interval in found):
        return None
    mean = float(np.mean([value for value, _ in found]))
    below = [value - interval[0] for value, interval in found if interval is not None]
    above = [interval[1] - value for value, interval in found if interval is not None]
    n = len(found)
    return max(0.0, mean - float(np.linalg.norm(below)) / n), min(1.0, mean + float(np.linalg.norm(above)) / n)


def metrics_table(
    categories: Mapping[str, CategoryMetrics], mean: MetricValues | None = None, *, subset: str = "all"
) -> pd.DataFrame:
    """The rows of metrics.parquet (data_contracts.tables.METRICS_TABLE); `subset` is all, development or report."""
    rows: list[dict[str, Any]] = []
    for category, metrics in categories.items():
        rows += _rows(metrics, subset, "category", category, "", metrics.ci95, metrics.auc_spro_weighted)
        for scope, split in ((DEFECT, metrics.by_defect), (FOLDER, metrics.by_folder), (GROUP, metrics.by_group)):
            for group, values in split.items():
                rows += _rows(values, subset, scope, category, group, values.ci95)
    if mean is not None:
        rows += _rows(mean, subset, "mean", "", "", mean.ci95)
    frame = pd.DataFrame(rows, columns=METRICS_TABLE.names)
    numbers = ["fpr_limit", "value", "ci_low", "ci_high"]
    return frame.astype(dict.fromkeys(numbers, "float64") | dict.fromkeys(["n_good", "n_defective"], "int64"))


def halves(images: Sequence[EvaluationImage]) -> tuple[list[EvaluationImage], list[EvaluationImage]]:
    """(development, report): the images of each half. Raises ValueError for an image without a SHA-256."""
    development: list[EvaluationImage] = []
    report: list[EvaluationImage] = []
    for image in images:
        (report if half_of(image.sha256, image.group) == "report" else development).append(image)
    return development, report


def _image_subsets(
    image: EvaluationImage, by_channels: frozenset[SubsetKey], defect_groups: Mapping[str, str]
) -> frozenset[SubsetKey]:
    """Also for defective images without masks: by their folder."""
    if not image.label_index:
        return frozenset()
    if by_channels:
        return by_channels - {WHOLE}
    group = defect_groups.get(image.folder)
    return frozenset({(FOLDER, image.folder)} | ({(GROUP, group)} if group is not None else set()))


def _metric_values(
    labels: np.ndarray,
    scores: np.ndarray,
    pixels: PixelMetrics,
    ci95: Mapping[str, tuple[float, float] | None],
    unmarked: float | None,
) -> MetricValues:
    of_pixels = {
        "pixel_auroc": pixels.pixel_auroc,
        "auc_spro": _limit_keys(pixels.auc_spro),
        "auc_spro_chance": _limit_keys(pixels.auc_spro_chance),
        "unmarked_image_auroc": unmarked,
    }
    return image_metrics(labels, scores).model_copy(update=of_pixels | {"ci95": dict(ci95)})


def _limit_keys(values: Mapping[float, float | None]) -> dict[str, float | None]:
    return {str(float(limit)): value for limit, value in values.items()}


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _rows(
    values: MetricValues,
    subset: str,
    scope: str,
    category: str,
    group: str,
    ci95: Mapping[str, tuple[float, float] | None] | None = None,
    auc_spro_weighted: Mapping[str, float | None] | None = None,
) -> list[dict[str, Any]]:
    found: list[tuple[str, float | None, float | None]] = [
        *((metric.key, None, metric.of(values)) for metric in METRICS if not metric.part),
        *(("auc_spro", float(limit), value) for limit, value in values.auc_spro.items()),
        *(("auc_spro_chance", float(limit), value) for limit, value in values.auc_spro_chance.items()),
        *(("auc_spro_weighted", float(limit), value) for limit, value in (auc_spro_weighted or {}).items()),
        *((f"tpr_at_tnr_{rate}", None, value) for rate, value in values.tpr_at_tnr.items()),
    ]
    rows = []
    for metric, limit, value in found:
        low, high = (ci95 or {}).get(metric if limit is None else f"{metric}_{limit}") or (None, None)
        row: dict[str, Any] = {"subset": subset, "scope": scope, "category": category, "group": group, "metric": metric}
        row |= {"fpr_limit": limit, "value": value, "ci_low": low, "ci_high": high}
        rows.append(row | {"n_good": values.n_good, "n_defective": values.n_defective})
    return rows


def curve_rows(category: str, labels: np.ndarray, scores: np.ndarray, spro: SproCurve | None) -> pd.DataFrame:
    """The rows of curves.parquet of one category, from its image labels and scores (image,) and its sPRO curve."""
    curves: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    if spro is not None:
        curves.append(("spro_fpr", spro.fpr, spro.spro, spro.threshold))
    for name, curve in (("roc", roc(labels, scores)), ("precision_recall", precision_recall(labels, scores))):
        if curve is not None:
            curves.append((name, curve.x, curve.y, curve.threshold))
    frames = [
        pd.DataFrame({"category": category, "curve": name, "x": x, "y": y, "threshold": threshold})
        for name, x, y, threshold in curves
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=CURVES.names)
