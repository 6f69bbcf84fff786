"""Figures over the test images of several stations, from sums that hold neither images nor maps.

AUC-sPRO and pixel AUROC depend on how scores of normal and of marked pixels lie among one another, and on nothing else.
A station counts both in bins of its own, each a range of scores. It splits what holds more than SHARE of its pixels,
down to single scores where it has to, whatever level its scores have and however little they differ.

How pixels lie within a bin nobody is told. The coordinator places them as badly as they can lie, all normal pixels at
the highest score of their bin and all marked ones at the lowest, and as well as they can; the figure of all images at
one place, by the formula of `pipeline_lib.metrics.spro`, lies between the two. The pooled figure is their middle, and
half their difference is given beside it: mostly far below TOLERANCE. Image scores and labels are pooled as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np

from data_contracts.errors import UploadError
from data_contracts.results import MetricValues
from pipeline_lib.metrics.image_metrics import image_metrics
from pipeline_lib.metrics.spro.areas import areas_up_to, curve_of
from pipeline_lib.metrics.spro.defective_images import load_map
from pipeline_lib.metrics.spro.records import EvaluationImage, SproCurve

TOLERANCE = 1e-3  # an error above it is worth a warning
SHARE = 2.0**-11
"""A bin of several scores holds at most about this share of the marked pixels, of the channels' pixels that count, and
of the normal pixels that score as high or higher."""
LOWEST_FPR = 2.0**-11  # shares of fewer normal pixels than that are taken as shares of so many
LEVELS = (12, 6, 0)  # bits that the scores of one bin may differ in: all bins at first, then those that hold too much
SIGN = np.uint32(0x8000_0000)
EARLIER_BITS = 10  # bins of earlier versions, named by a float32 without its last bits


@dataclass(frozen=True)
class StationFigures:
    """What one station's test images of a category add to the pooled figures."""

    image_scores: np.ndarray  # float64 (image,)
    label_index: np.ndarray  # int64 (image,), 0 good
    lowest: np.ndarray  # float32 (bin,), the lowest score that the bin can hold
    highest: np.ndarray  # float32 (bin,)
    normal_px: np.ndarray  # int64 (bin,), pixels that no channel marks
    marked_px: np.ndarray  # int64 (bin,), pixels that a channel marks
    spro_lift: np.ndarray  # float64 (bin,), sum over channels of its counting pixels / its saturation area
    n_channels: np.ndarray  # int64 (1,)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As an artifact's arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], *, sender: str) -> StationFigures:
        """Raises UploadError, naming the sender, for arrays that cannot be such figures.

        Stations of earlier versions send `bins`, the same for everyone.
        """

        def refuse(reason: str) -> UploadError:
            return UploadError(f"figures of {sender} refused: {reason}")

        arrays = dict(arrays)
        if (bins := arrays.pop("bins", None)) is not None and bins.dtype == np.uint32:
            lowest = bins << np.uint32(EARLIER_BITS)
            arrays |= {"lowest": _scores_of(lowest), "highest": _scores_of(lowest | _ones(EARLIER_BITS))}
        names = [field.name for field in fields(cls)]
        if set(arrays) != set(names):
            raise refuse(f"expected the arrays {', '.join(names)}, got {', '.join(sorted(arrays)) or 'none'}")
        for name in names:
            kind = "f" if name in ("image_scores", "lowest", "highest", "spro_lift") else "i"
            array = arrays[name]
            if array.ndim != 1 or array.dtype.kind != kind:
                raise refuse(f"{name} has shape {array.shape} and type {array.dtype}")
            if kind == "f" and not np.isfinite(array).all():
                raise refuse(f"{name} is not finite")
        by_bin = [len(arrays[name]) for name in ("lowest", "highest", "normal_px", "marked_px", "spro_lift")]
        by_image = [len(arrays[name]) for name in ("image_scores", "label_index")]
        if len(set(by_bin)) > 1 or len(set(by_image)) > 1 or len(arrays["n_channels"]) != 1:
            raise refuse("its arrays do not have the same length")
        if any((arrays[name] < 0).any() for name in ("normal_px", "marked_px", "spro_lift", "n_channels")):
            raise refuse("it holds counts below 0")
        if (arrays["lowest"] > arrays["highest"]).any():
            raise refuse("it holds bins whose lowest score is above the highest")
        return cls(**arrays)


# --- at a station ----------------------------------------------------------------------------------------------------


def station_figures(images: Sequence[EvaluationImage]) -> StationFigures:
    """Count one station's test images of a category, one map at a time; maps are loaded once for each of LEVELS.

    A defective image without masks is in the image scores alone, as it is in `spro.evaluate_pixels`. Raises ImageError
    for a map that is not finite.
    """
    marked = _Marked.of(images)
    bins = _bins(images, marked).merged()
    normal, on_defects, lift = bins.held
    return StationFigures(
        image_scores=np.array([image.score for image in images], np.float64),
        label_index=np.array([image.label_index for image in images], np.int64),
        lowest=_scores_of(bins.lowest),
        highest=_scores_of(bins.highest),
        normal_px=normal.astype(np.int64),
        marked_px=on_defects.astype(np.int64),
        spro_lift=lift,
        n_channels=np.array([marked.n_channels], np.int64),
    )


@dataclass(frozen=True)
class _Marked:
    """The masks of the defective images, which are loaded once, and the channels' pixels that count."""

    masks: dict[int, np.ndarray]  # position of an image -> the union of its channels, packed
    unmasked: frozenset[int]  # positions of defective images without masks
    keys: np.ndarray  # uint32 (counting pixel,)
    lifts: np.ndarray  # float64 (counting pixel,), 1 / saturation area
    n_channels: int

    @classmethod
    def of(cls, images: Sequence[EvaluationImage]) -> _Marked:
        masks: dict[int, np.ndarray] = {}
        tops: list[np.ndarray] = [np.empty(0, np.uint32)]
        lifts: list[np.ndarray] = [np.empty(0)]
        unmasked = set()
        for position, image in enumerate(images):
            channels = image.load_channels() if image.label_index else []
            if image.label_index and not channels:
                unmasked.add(position)
            if not channels:
                continue
            score_map = load_map(image)
            for channel in channels:
                tops.append(_keys_of(np.sort(score_map[channel.mask])[-channel.saturation_area_px :]))
                lifts.append(np.full(len(tops[-1]), 1 / channel.saturation_area_px))
            masks[position] = np.packbits(np.logical_or.reduce([channel.mask for channel in channels]))
        return cls(masks, frozenset(unmasked), np.concatenate(tops), np.concatenate(lifts), len(tops) - 1)


@dataclass(frozen=True)
class _Bins:
    """Ranges of scores that occur, ascending, and what each holds; scores by their keys."""

    lowest: np.ndarray  # uint32 (bin,)
    highest: np.ndarray  # uint32 (bin,)
    held: np.ndarray  # float64 (3, bin): normal pixels, marked pixels, lift of the counting pixels

    def __getitem__(self, chosen: np.ndarray) -> _Bins:
        return _Bins(self.lowest[chosen], self.highest[chosen], self.held[:, chosen])

    def joined(self, other: _Bins) -> _Bins:
        both = _Bins(
            np.concatenate([self.lowest, other.lowest]),
            np.concatenate([self.highest, other.highest]),
            np.concatenate([self.held, other.held], axis=1),
        )
        return both[np.argsort(both.lowest)]

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """How many times SHARE lie up to each bin's end, and in it, float64 (3, bin).

        Of the normal pixels it is the share of those that score as high or higher: a bin spans false positive rates
        whose ratio is that much above 1.
        """
        total = np.maximum(self.held.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        up_to = np.cumsum(self.held, axis=1) / total
        before = up_to - self.held / total
        for share in (up_to, before):
            share[0] = -np.log1p(LOWEST_FPR - share[0])
        return up_to / SHARE, (up_to - before) / SHARE

    @property
    def holds_too_much(self) -> np.ndarray:
        """bool (bin,)"""
        too_much: np.ndarray = np.any(self.steps()[1] > 1, axis=0)
        return too_much

    def merged(self) -> _Bins:
        """Neighbours together as long as they hold no more than SHARE; what holds more stays by itself."""
        if not len(self.lowest):
            return self
        alone, step = self.holds_too_much, np.floor(self.steps()[0])
        is_start = alone[1:] | alone[:-1] | (step[:, 1:] != step[:, :-1]).any(axis=0)
        starts = np.concatenate([[0], 1 + np.flatnonzero(is_start)])
        ends = np.append(starts[1:], len(alone)) - 1
        return _Bins(self.lowest[starts], self.highest[ends], np.add.reduceat(self.held, starts, axis=1))


def _bins(images: Sequence[EvaluationImage], marked: _Marked) -> _Bins:
    """Bins that hold at most SHARE, or a single score."""
    lowest = np.arange(0, 1 << 32, 1 << LEVELS[0], dtype=np.uint32)
    splits: list[np.ndarray] = []
    bins = kept = _Bins(lowest[:0], lowest[:0], np.zeros((3, 0)))
    for bits, finer in zip(LEVELS, (*LEVELS[1:], 0), strict=True):
        held = _count(images, marked, splits, len(lowest))
        there = np.flatnonzero(held.any(axis=0))
        bins = kept.joined(_Bins(lowest[there], lowest[there] | _ones(bits), held[:, there]))
        too_much = bins.holds_too_much & (bins.lowest < bins.highest)
        if not too_much.any():
            break
        kept = bins[~too_much]
        split = np.searchsorted(lowest, bins.lowest[too_much])
        blocks = np.full(len(lowest) + 1, -1)  # the last one is that of the place -1
        blocks[split] = np.arange(len(split))
        splits.append(blocks)
        lowest = (lowest[split][:, None] | np.arange(0, 1 << bits, 1 << finer, dtype=np.uint32)).ravel()
    return bins


def _count(
    images: Sequence[EvaluationImage], marked: _Marked, splits: Sequence[np.ndarray], n_places: int
) -> np.ndarray:
    """What the places of the finest level hold, float64 (3, place); maps are loaded one at a time."""

    def count(keys: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(_places(keys, splits) + 1, weights=weights, minlength=n_places + 1)[1:]

    held = np.zeros((3, n_places))
    held[2] = count(marked.keys, marked.lifts)
    for position, image in enumerate(images):
        if position in marked.unmasked:
            continue
        keys = _keys_of(load_map(image)).ravel()
        if position in marked.masks:
            mask = np.unpackbits(marked.masks[position], count=len(keys)).astype(bool)
            held[1] += count(keys[mask])
            keys = keys[~mask]
        held[0] += count(keys)
    return held


def _places(keys: np.ndarray, splits: Sequence[np.ndarray]) -> np.ndarray:
    """The place that each key has on the finest level, int64 (key,); -1 for those whose bin was not split so far.

    splits: for each level but the finest, the block of the next level that a place was split into, or -1.
    """
    places = (keys >> np.uint32(LEVELS[0])).astype(np.int64)
    for bits, finer, blocks in zip(LEVELS, LEVELS[1:], splits, strict=False):
        block = blocks[places]
        within = (keys & _ones(bits)) >> np.uint32(finer)
        places = np.where(block < 0, -1, (block << (bits - finer)) | within)
    return places


def _keys_of(scores: np.ndarray) -> np.ndarray:
    """uint32 in the order of the scores (float32, finite, any sign)."""
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0, which it equals
    keys: np.ndarray = np.where(bits & SIGN, ~bits, bits | SIGN)
    return keys


def _scores_of(keys: np.ndarray) -> np.ndarray:
    """The inverse of `_keys_of`."""
    scores: np.ndarray = np.where(keys & SIGN, keys ^ SIGN, ~keys).astype(np.uint32).view(np.float32)
    return scores


def _ones(bits: int) -> np.uint32:
    return np.uint32((1 << bits) - 1)


# --- at the coordinator ----------------------------------------------------------------------------------------------

End = Literal["lowest", "highest"]


@dataclass(frozen=True)
class _PooledPixels:
    """Sums over stations, by score, with each bin's normal and marked pixels at one end of it."""

    scores: np.ndarray  # float32 (score,), ascending
    normal: np.ndarray  # float64 (score,)
    marked: np.ndarray
    steps: np.ndarray  # how much each score lifts the mean sPRO
    n_channels: int

    @classmethod
    def of(cls, stations: Sequence[StationFigures], *, normal_at: End, marked_at: End) -> _PooledPixels:
        def all_of(name: str) -> np.ndarray:
            return np.concatenate([getattr(one, name) for one in stations])

        scores = np.unique(np.concatenate([all_of(normal_at), all_of(marked_at)]).astype(np.float32))
        normal, marked, lift = (
            np.bincount(np.searchsorted(scores, all_of(end)), weights=all_of(name), minlength=len(scores))
            for name, end in (("normal_px", normal_at), ("marked_px", marked_at), ("spro_lift", marked_at))
        )
        n_channels = sum(int(one.n_channels[0]) for one in stations)
        return cls(scores, normal, marked, lift / max(n_channels, 1), n_channels)

    @property
    def n_normal(self) -> int:
        return int(self.normal.sum())

    @property
    def above(self) -> np.ndarray:
        above: np.ndarray = self.n_normal - np.cumsum(self.normal)
        return above

    def figures(self, fpr_limits: Sequence[float]) -> dict[str, float | None]:
        """pixel_auroc, and AUC-sPRO by limit as text."""
        above, n_normal = self.above, self.n_normal
        areas = areas_up_to(above, self.normal, self.steps, n_normal, list(fpr_limits))
        pixel_auroc = None
        if n_normal and self.n_channels:
            lower = n_normal - above - self.normal / 2
            pixel_auroc = float(self.marked @ lower / (self.marked.sum() * n_normal))
        return {"pixel_auroc": pixel_auroc} | {str(limit): area for limit, area in areas.items()}


def pooled_images(stations: Sequence[StationFigures]) -> tuple[np.ndarray, np.ndarray]:
    """(label_index int64 (image,), score float64 (image,)) of all stations' test images, in the stations' order."""
    labels = np.concatenate([one.label_index for one in stations])
    return labels, np.concatenate([one.image_scores for one in stations])


class PooledFigures(NamedTuple):
    """The figures of all stations' test images together."""

    metrics: MetricValues  # None where a class or masks are missing everywhere
    error: float | None  # pixel AUROC and AUC-sPRO are off by at most this; None where there are none


def pool_figures(stations: Sequence[StationFigures], *, fpr_limits: Sequence[float]) -> PooledFigures:
    """The figures of all stations' test images together, and how far they may be from those at one place."""
    worst = _PooledPixels.of(stations, normal_at="highest", marked_at="lowest").figures(fpr_limits)
    best = _PooledPixels.of(stations, normal_at="lowest", marked_at="highest").figures(fpr_limits)
    ends = {name: (low, high) for name, low in worst.items() if low is not None and (high := best[name]) is not None}
    middle = {name: (ends[name][0] + ends[name][1]) / 2 if name in ends else None for name in worst}
    of_pixels = {"pixel_auroc": middle.pop("pixel_auroc"), "auc_spro": middle}
    metrics = image_metrics(*pooled_images(stations)).model_copy(update=of_pixels)
    return PooledFigures(metrics, max(((high - low) / 2 for low, high in ends.values()), default=None))


def pooled_spro_curve(stations: Sequence[StationFigures]) -> SproCurve | None:
    """sPRO against FPR over all stations' test images, thinned; None without normal pixels or channels."""
    pixels = _PooledPixels.of(stations, normal_at="lowest", marked_at="lowest")
    if not pixels.n_normal or not pixels.steps.any():
        return None
    return curve_of(pixels.scores, pixels.above, pixels.normal, pixels.steps, pixels.n_normal)
