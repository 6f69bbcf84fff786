"""Figures over the test images of several stations, from sums that hold neither images nor maps.

AUC-sPRO and pixel AUROC depend on how scores of normal and of marked pixels lie among one another, and on nothing else.
A station counts both in bins that are the same for everyone: the float32 score without its last SHIFT bits, so that a
bin is 2^-13 of its score wide. The sums of all stations give the pooled figures by the formula of `pipeline_lib.spro`,
with the scores of one bin as ties; on 1e-3 that is no difference. Image scores and labels are pooled as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from data_contracts.errors import UploadError
from data_contracts.results import MetricValues
from pipeline_lib.image_metrics import image_metrics
from pipeline_lib.spro import EvaluationImage, SproCurve
from pipeline_lib.spro.areas import areas_up_to, curve_of
from pipeline_lib.spro.defective_images import load_map

SHIFT = 10  # of float32's 23 bits of fraction; 13 stay
SIGN = np.uint32(0x8000_0000)


@dataclass(frozen=True)
class StationFigures:
    """What one station's test images of a category add to the pooled figures."""

    image_scores: np.ndarray  # float64 (image,)
    label_index: np.ndarray  # int64 (image,), 0 good
    bins: np.ndarray  # uint32 (bin,), ascending, of scores that occur
    normal_px: np.ndarray  # int64 (bin,), pixels that no channel marks
    marked_px: np.ndarray  # int64 (bin,), pixels that a channel marks
    spro_lift: np.ndarray  # float64 (bin,), sum over channels of its counting pixels / its saturation area
    n_channels: np.ndarray  # int64 (1,)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As an artifact's arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], *, sender: str) -> StationFigures:
        """Raises UploadError, naming the sender, for arrays that cannot be such figures."""

        def refuse(reason: str) -> UploadError:
            return UploadError(f"figures of {sender} refused: {reason}")

        names = [field.name for field in fields(cls)]
        if set(arrays) != set(names):
            raise refuse(f"expected the arrays {', '.join(names)}, got {', '.join(sorted(arrays)) or 'none'}")
        for name in names:
            kind = "f" if name in ("image_scores", "spro_lift") else "u" if name == "bins" else "i"
            array = arrays[name]
            if array.ndim != 1 or array.dtype.kind != kind:
                raise refuse(f"{name} has shape {array.shape} and type {array.dtype}")
            if kind == "f" and not np.isfinite(array).all():
                raise refuse(f"{name} is not finite")
        by_bin = [len(arrays[name]) for name in ("bins", "normal_px", "marked_px", "spro_lift")]
        by_image = [len(arrays[name]) for name in ("image_scores", "label_index")]
        if len(set(by_bin)) > 1 or len(set(by_image)) > 1 or len(arrays["n_channels"]) != 1:
            raise refuse("its arrays do not have the same length")
        if any((arrays[name] < 0).any() for name in ("normal_px", "marked_px", "spro_lift", "n_channels")):
            raise refuse("it holds counts below 0")
        return cls(**arrays)


def score_bins(scores: np.ndarray) -> np.ndarray:
    """The bin of each score, uint32 in the order of the scores (float32, any sign)."""
    bits = np.ascontiguousarray(scores, np.float32).view(np.uint32)
    ordered = np.where(bits & SIGN, ~bits, bits | SIGN)
    bins: np.ndarray = (ordered >> np.uint32(SHIFT)).astype(np.uint32)
    return bins


def lowest_scores(bins: np.ndarray) -> np.ndarray:
    """The lowest score of each bin, float32: the inverse of `score_bins` at a bin's lower end."""
    ordered = np.asarray(bins, np.uint32) << np.uint32(SHIFT)
    scores: np.ndarray = np.where(ordered & SIGN, ordered ^ SIGN, ~ordered).astype(np.uint32).view(np.float32)
    return scores


def station_figures(images: Sequence[EvaluationImage]) -> StationFigures:
    """Count one station's test images of a category, one map at a time.

    A defective image without masks is in the image scores alone, as it is in `spro.evaluate_pixels`. Raises ImageError
    for a map that is not finite.
    """
    size = 1 << (32 - SHIFT)
    normal, marked = np.zeros(size, np.int64), np.zeros(size, np.int64)
    lift = np.zeros(size)
    n_channels = 0
    for image in images:
        channels = image.load_channels() if image.label_index else []
        if image.label_index and not channels:
            continue
        score_map = load_map(image)
        union = np.zeros(score_map.shape, bool)
        for channel in channels:
            union |= channel.mask.astype(bool)
            top = np.sort(score_map[channel.mask])[-channel.saturation_area_px :]
            np.add.at(lift, score_bins(top), 1 / channel.saturation_area_px)
            n_channels += 1
        bins = score_bins(score_map)
        normal += np.bincount(bins[~union], minlength=size)
        marked += np.bincount(bins[union], minlength=size)
    there = np.flatnonzero(normal + marked)
    return StationFigures(
        image_scores=np.array([image.score for image in images], np.float64),
        label_index=np.array([image.label_index for image in images], np.int64),
        bins=there.astype(np.uint32),
        normal_px=normal[there],
        marked_px=marked[there],
        spro_lift=lift[there],
        n_channels=np.array([n_channels], np.int64),
    )


@dataclass(frozen=True)
class _PooledPixels:
    """Sums over stations, by bin."""

    bins: np.ndarray  # uint32 (bin,), ascending
    normal: np.ndarray  # float64 (bin,)
    marked: np.ndarray
    steps: np.ndarray  # how much each bin lifts the mean sPRO
    n_channels: int

    @classmethod
    def of(cls, stations: Sequence[StationFigures]) -> _PooledPixels:
        bins, place = np.unique(np.concatenate([one.bins for one in stations]), return_inverse=True)
        normal, marked, lift = (
            np.bincount(place, weights=np.concatenate([getattr(one, name) for one in stations]), minlength=len(bins))
            for name in ("normal_px", "marked_px", "spro_lift")
        )
        n_channels = sum(int(one.n_channels[0]) for one in stations)
        return cls(bins, normal, marked, lift / max(n_channels, 1), n_channels)

    @property
    def n_normal(self) -> int:
        return int(self.normal.sum())

    @property
    def above(self) -> np.ndarray:
        above: np.ndarray = self.n_normal - np.cumsum(self.normal)
        return above


def pooled_images(stations: Sequence[StationFigures]) -> tuple[np.ndarray, np.ndarray]:
    """(label_index int64 (image,), score float64 (image,)) of all stations' test images, in the stations' order."""
    labels = np.concatenate([one.label_index for one in stations])
    return labels, np.concatenate([one.image_scores for one in stations])


def pool_figures(stations: Sequence[StationFigures], *, fpr_limits: Sequence[float]) -> MetricValues:
    """The figures of all stations' test images together; None where a class or masks are missing everywhere."""
    image = image_metrics(*pooled_images(stations))
    pixels = _PooledPixels.of(stations)
    above, n_normal = pixels.above, pixels.n_normal
    areas = areas_up_to(above, pixels.normal, pixels.steps, n_normal, list(fpr_limits))
    pixel_auroc = None
    if n_normal and pixels.n_channels:
        lower = n_normal - above - pixels.normal / 2
        pixel_auroc = float(pixels.marked @ lower / (pixels.marked.sum() * n_normal))
    return MetricValues(
        image_auroc=image.auroc,
        image_ap=image.average_precision,
        pixel_auroc=pixel_auroc,
        auc_spro={str(limit): area for limit, area in areas.items()},
        tpr_at_tnr={str(rate): value for rate, value in image.tpr_at_tnr.items()},
        n_good=image.n_good,
        n_defective=image.n_defective,
    )


def pooled_spro_curve(stations: Sequence[StationFigures]) -> SproCurve | None:
    """sPRO against FPR over all stations' test images, thinned; None without normal pixels or channels."""
    pixels = _PooledPixels.of(stations)
    if not pixels.n_normal or not pixels.steps.any():
        return None
    return curve_of(lowest_scores(pixels.bins), pixels.above, pixels.normal, pixels.steps, pixels.n_normal)
