"""What the pixel metrics are computed from, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.spro.image_counts import ImageCounts, curve_area

SubsetKey = tuple[str, str]
WHOLE: SubsetKey = ("category", "")
"""The subset of all channels."""


@dataclass(frozen=True)
class EvaluationImage:
    """One test image with its score and the means to load its map and masks."""

    image_id: str
    category: str
    folder: str  # good, or the defect folder
    label_index: int  # 0 good, 1 defective
    sha256: str
    score: float
    load_map: Callable[[], np.ndarray]  # float32 (height, width), at the image's own size
    load_channels: Callable[[], list[DefectChannel]]  # called once, and only where label_index is not 0
    group: str | None = None  # of images of one part, place or tile; None: it stands alone


@dataclass(frozen=True)
class SproCurve:
    """Points of the curve, false positive rate ascending; a threshold of NaN stands for beyond all defect scores."""

    fpr: np.ndarray  # float64 (point,)
    spro: np.ndarray
    threshold: np.ndarray

    def area(self, limit: float) -> float:
        """Area up to `limit`, divided by it."""
        return float(curve_area(self.fpr[None], self.spro[None], limit=limit)[0])


@dataclass(frozen=True)
class PixelMetrics:
    """The pixel metrics of one subset of channels; None where there is no channel or no normal pixel."""

    auc_spro: dict[float, float | None]
    auc_spro_weighted: dict[float, float | None]  # mean over channels weighted by DefectChannel.weight
    auc_spro_chance: dict[float, float | None]  # of a map of noise
    pixel_auroc: float | None
    n_channels: int = 0
    n_normal_px: int = 0
    bad_saturation_channels: int = 0
    has_weights: bool = False
    curve: SproCurve | None = None

    @classmethod
    def undefined(cls, fpr_limits: Iterable[float]) -> PixelMetrics:
        """What there is without masks."""
        nothing: dict[float, float | None] = dict.fromkeys(fpr_limits)
        return cls(auc_spro=nothing, auc_spro_weighted=dict(nothing), auc_spro_chance=dict(nothing), pixel_auroc=None)


@dataclass(frozen=True)
class PixelEvaluation:
    """What `evaluate_pixels` finds."""

    by_subset: dict[SubsetKey, PixelMetrics]
    image_subsets: list[frozenset[SubsetKey]]  # of each image, by its channels; empty for good ones
    unmasked: list[str]  # defective images without channels: they are left out of all pixel metrics
    counts: dict[SubsetKey, ImageCounts]  # for the bootstrap of each subset; empty without a grid or channels
    highest_unmarked: np.ndarray  # float64 (image,): away from all masks; NaN where unmasked, and without channels
