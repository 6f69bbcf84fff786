"""Resamples of images, good and defective ones apart, or of groups of them (Efron & Tibshirani 1993, ch. 13).

AUC-sPRO of a resample comes from per-image counts on a grid of thresholds: the counts of a resample are matrix
products of the resample's weights (how often each image was drawn) with those of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data_contracts.config import HEADLINE_FPR_LIMIT
from data_contracts.errors import ArtifactError
from data_contracts.results import AUC_SPRO, AUC_SPRO_AS_PRO, IMAGE_AP, IMAGE_AUROC
from pipeline_lib.metrics.auroc_interval import auroc_interval
from pipeline_lib.metrics.spro.image_counts import ImageCounts, curve_area

GRID_SCORES = 1000
_CHUNK = 128  # resamples whose curves are held at a time


@dataclass(frozen=True)
class ImageSample:
    """The images that are resampled: what the metrics of any resample follow from."""

    image_ids: tuple[str, ...]
    label_index: np.ndarray  # int64 (image,): 0 good, 1 defective
    scores: np.ndarray  # float64 (image,)
    counts: ImageCounts | None  # None where there are no masks
    group_index: np.ndarray | None = None  # int64 (image,), equal for images of one group; None: each stands alone

    @property
    def independent(self) -> tuple[int, int]:
        """How many groups hold good images, and how many defective ones; an image that stands alone is one."""
        groups = np.arange(len(self.scores)) if self.group_index is None else self.group_index
        good, defective = (len(np.unique(groups[(self.label_index != 0) == bool(label)])) for label in (0, 1))
        return good, defective

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Named arrays for an npz file."""
        arrays = {
            "image_ids": np.array(self.image_ids, np.str_),
            "label_index": self.label_index,
            "scores": self.scores,
        }
        if self.group_index is not None:
            arrays["group_index"] = self.group_index
        if self.counts is not None:
            arrays |= {name: getattr(self.counts, name) for name in ImageCounts.__dataclass_fields__}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ImageSample:
        """The inverse of `to_arrays`. Raises ArtifactError when an array is missing."""
        names = ["image_ids", "label_index", "scores"]
        fields = list(ImageCounts.__dataclass_fields__)
        has_counts = any(name in arrays for name in fields)
        if missing := [name for name in names + fields * has_counts if name not in arrays]:
            raise ArtifactError(f"per-image counts lack {', '.join(missing)}; compute the metrics again")
        counts = ImageCounts(**{name: arrays[name] for name in fields}) if has_counts else None
        ids, groups = tuple(arrays["image_ids"].tolist()), arrays.get("group_index")
        return cls(ids, arrays["label_index"], arrays["scores"], counts, groups)


def group_numbers(groups: Sequence[str | None]) -> np.ndarray | None:
    """Equal numbers for images of one group, int64 (image,), others for those that stand alone; None without groups."""
    if not any(group is not None for group in groups):
        return None
    numbers: dict[str | int, int] = {}
    found = [numbers.setdefault(i if group is None else group, len(numbers)) for i, group in enumerate(groups)]
    return np.array(found, np.int64)


def resample_weights(
    label_index: np.ndarray, *, resamples: int, rng: np.random.Generator, group_index: np.ndarray | None = None
) -> np.ndarray:
    """How often each resample draws each image, float64 (resample, image).

    Both labels keep their counts. With groups whole groups are drawn: apart where each holds one label, else together,
    and then resamples without one of the labels are drawn again.
    """
    if group_index is not None:
        return _group_weights(label_index, group_index, resamples=resamples, rng=rng)
    weights = np.zeros((resamples, len(label_index)))
    for label in (0, 1):
        where = np.flatnonzero((label_index != 0) == bool(label))
        if len(where):
            weights[:, where] = rng.multinomial(len(where), np.full(len(where), 1 / len(where)), size=resamples)
    return weights


def _group_weights(
    label_index: np.ndarray, group_index: np.ndarray, *, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    _, group_of = np.unique(group_index, return_inverse=True)
    defective = label_index != 0
    holds = np.array([np.bincount(group_of[defective == label], minlength=group_of.max() + 1) for label in (0, 1)]) > 0
    mixed = bool(holds.all(axis=0).any())
    strata = [np.arange(holds.shape[1])] if mixed else [np.flatnonzero(one) for one in holds if one.any()]

    def draw(n: int) -> np.ndarray:
        times = np.zeros((n, holds.shape[1]))
        for groups in strata:
            times[:, groups] = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=n)
        return times

    times, there = draw(resamples), holds[holds.any(axis=1)]
    while len(lacking := np.flatnonzero((times @ there.T == 0).any(axis=1))):
        times[lacking] = draw(len(lacking))
    return times[:, group_of]


def resampled_image_auroc(sample: ImageSample, weights: np.ndarray) -> np.ndarray | None:
    """Image AUROC of each resample, float64 (resample,); None where one of the labels is missing."""
    good, defective = sample.label_index == 0, sample.label_index != 0
    if not (good.any() and defective.any()):
        return None
    difference = sample.scores[defective][:, None] - sample.scores[good][None, :]
    wins = (np.sign(difference) + 1) / 2
    won = ((weights[:, defective] @ wins) * weights[:, good]).sum(axis=1)
    area: np.ndarray = won / (weights[:, defective].sum(axis=1) * weights[:, good].sum(axis=1))
    return area


def resampled_average_precision(sample: ImageSample, weights: np.ndarray) -> np.ndarray | None:
    """Average precision of the images of each resample, float64 (resample,); None where one of the labels is missing.

    As scikit-learn's: the mean of the precisions at each distinct score, weighted by the rise in recall there.
    """
    defective = sample.label_index != 0
    if not defective.any() or defective.all():
        return None
    order = np.argsort(-sample.scores, kind="stable")
    drawn = weights[:, order]
    found = np.cumsum(drawn * defective[order], axis=1)
    called = np.cumsum(drawn, axis=1)
    last = np.append(np.diff(sample.scores[order]) != 0, True)  # of the images with one score
    found, called = found[:, last], called[:, last]
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    rise: np.ndarray = np.diff(found, axis=1, prepend=0.0)
    mean: np.ndarray = (rise * precision).sum(axis=1) / found[:, -1]
    return mean


def resampled_auc_spro(
    sample: ImageSample, weights: np.ndarray, *, fpr_limit: float = HEADLINE_FPR_LIMIT
) -> np.ndarray | None:
    """AUC-sPRO of each resample from the grid, float64 (resample,); None without masks or normal pixels.

    A resample that drew no image with a channel, or none with normal pixels, is NaN.
    """
    counts = sample.counts
    if counts is None or not counts.n_channels.any() or not counts.n_normal_px.any():
        return None
    normal_above = counts.normal_above.astype(np.float64)
    areas = np.empty(len(weights))
    for start in range(0, len(weights), _CHUNK):
        chunk = weights[start : start + _CHUNK]
        n_normal, n_channels = chunk @ counts.n_normal_px, chunk @ counts.n_channels
        empty = (n_normal == 0) | (n_channels == 0)
        x, y = np.zeros((2, len(chunk), normal_above.shape[1] + 2))
        np.divide(chunk @ normal_above, np.where(empty, 1, n_normal)[:, None], out=x[:, 1:-1])
        np.divide(chunk @ counts.spro_sum, np.where(empty, 1, n_channels)[:, None], out=y[:, 1:-1])
        x[:, -1], y[:, -1] = 1.0, y[:, -2]
        areas[start : start + _CHUNK] = np.where(empty, np.nan, curve_area(x, y, limit=fpr_limit))
    return areas


RESAMPLED: dict[str, Callable[[ImageSample, np.ndarray], np.ndarray | None]] = {
    IMAGE_AUROC.key: resampled_image_auroc,
    IMAGE_AP.key: resampled_average_precision,
    AUC_SPRO.key: resampled_auc_spro,
    AUC_SPRO_AS_PRO.key: partial(resampled_auc_spro, fpr_limit=float(AUC_SPRO_AS_PRO.part)),
}
"""Metric, by its key -> its value in each resample."""


def percentile_interval(values: np.ndarray | None) -> tuple[float, float] | None:
    """The 2.5 and 97.5 percentiles of what is defined; None where nothing is."""
    if values is None or not len(defined := values[~np.isnan(values)]):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def confidence_intervals(
    sample: ImageSample, *, resamples: int, rng: np.random.Generator
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of `HEADLINES` under their keys: of AUROC by `auroc_interval`, else percentiles.

    Empty for 0 resamples.
    """
    if not resamples:
        return {}
    groups = sample.group_index
    weights = resample_weights(sample.label_index, resamples=resamples, rng=rng, group_index=groups)
    return {
        IMAGE_AUROC.key: auroc_interval(sample.label_index, sample.scores, groups),
        AUC_SPRO.key: percentile_interval(resampled_auc_spro(sample, weights)),
    }


def in_order(sample: ImageSample, keep: Callable[[str], bool] = lambda image_id: True) -> ImageSample:
    """The images that `keep` wants, in order of their ids."""
    order = np.array([i for i in np.argsort(np.array(sample.image_ids)) if keep(sample.image_ids[i])], dtype=np.int64)
    counts = sample.counts
    if counts is not None:
        counts = ImageCounts(**{name: getattr(counts, name)[order] for name in ImageCounts.__dataclass_fields__})
    ids = tuple(sample.image_ids[i] for i in order)
    groups = None if sample.group_index is None else sample.group_index[order]
    return ImageSample(ids, sample.label_index[order], sample.scores[order], counts, groups)
