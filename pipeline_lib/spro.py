"""AUC-sPRO, exact over all distinct scores and at all FPR limits at once, with pixel AUROC, image by image.

sPRO of a defect channel at threshold t is min(TP(t) / saturation area, 1) (Bergmann et al. 2022, "Beyond Dents and
Scratches", eq. 2). The curve is the mean over channels against the false positive rate over all pixels that no
channel marks, straight between consecutive distinct scores, from (0, 0).

Only the highest `saturation area` pixels of a channel move its sPRO, each by 1 / saturation area. A pixel of score v
with `above` normal pixels over it and `at` normal pixels level with it lifts the curve between the false positive
rates a = above / N and b = (above + at) / N, so that up to a limit L it adds to the area::

    L - (a + b) / 2        where b <= L
    (L - a)^2 / (2 (b - a))  where a < L < b
    0                      otherwise

The area is the weighted sum of that over the defect scores: one sort of the normal scores (in batches that fit the
cache) and one search, no loop over thresholds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_contracts.errors import ImageError
from pipeline_lib.bootstrap import ImageCounts, curve_area, score_grid
from pipeline_lib.ground_truth import DefectChannel
from pipeline_lib.image_metrics import thin_curve

logger = logging.getLogger(__name__)

SubsetKey = tuple[str, str]
WHOLE: SubsetKey = ("category", "")
"""The subset of all channels."""

KEPT_BYTES = 256 * 2**20  # normal scores of defective images kept between the passes; beyond it maps are loaded twice
BATCH_PX = 2**22  # normal scores sorted at a time; 16 MiB stay in the cache
LARGE_BATCH_PX = 2**24  # where so many defect scores are looked up that fewer batches pay off
MANY_KEYS = 2**17
CHUNK_KEYS = 2**18
CURVE_POINTS = 1000


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
        return cls(auc_spro=nothing, auc_spro_weighted=dict(nothing), pixel_auroc=None)


@dataclass(frozen=True)
class PixelEvaluation:
    """What `evaluate_pixels` finds."""

    by_subset: dict[SubsetKey, PixelMetrics]
    image_subsets: list[frozenset[SubsetKey]]  # of each image, by its channels; empty for good ones
    unmasked: list[str]  # defective images without channels: they are left out of all pixel metrics
    counts: ImageCounts | None


@dataclass(frozen=True)
class _Channel:
    image: int
    subsets: frozenset[SubsetKey]
    top: np.ndarray  # its highest `saturation area` scores, ascending
    saturation_area_px: int
    weight: float
    bad_saturation: bool


@dataclass
class _Collected:
    """Pass 1: everything about the defective images."""

    channels: list[_Channel] = field(default_factory=list)
    subsets: list[frozenset[SubsetKey]] = field(default_factory=list)  # by image
    marked: dict[SubsetKey, list[np.ndarray]] = field(default_factory=dict)  # scores of the subset's marked pixels
    normal: dict[int, np.ndarray] = field(default_factory=dict)  # kept normal scores
    normal_bits: dict[int, np.ndarray] = field(default_factory=dict)  # packed mask, where they were not kept
    unmasked: set[int] = field(default_factory=set)


def evaluate_pixels(
    images: Sequence[EvaluationImage],
    *,
    fpr_limits: Sequence[float],
    subsets_of: Callable[[EvaluationImage, DefectChannel], Iterable[SubsetKey]] = lambda image, channel: (),
    pixel_auroc: bool = True,
    curve: bool = True,
    grid_scores: int = 0,
) -> PixelEvaluation:
    """Exact AUC-sPRO and pixel AUROC, for all channels and for every subset that `subsets_of` puts a channel in.

    A subset is measured on the good images and the images with one of its channels: the mean is over its channels,
    false positives are pixels that no channel of any subset marks, and the positives of pixel AUROC are the pixels
    that its own channels mark. `grid_scores` above 0 also counts for the bootstrap, over all channels.
    Maps of good images are loaded once, those of defective ones once or (beyond 256 MiB of them) twice; memory is
    bounded by that, the marked pixels and one batch.

    Raises ImageError for a map that is not finite or does not have the size of its masks, and for an empty mask.
    """
    collected = _collect(images, subsets_of, pixel_auroc=pixel_auroc)
    if not collected.channels:
        unmasked = [images[i].image_id for i in sorted(collected.unmasked)]
        return PixelEvaluation({WHOLE: PixelMetrics.undefined(fpr_limits)}, collected.subsets, unmasked, None)
    scores = collected.marked[WHOLE] if pixel_auroc else [channel.top for channel in collected.channels]
    keys = _distinct(np.concatenate(scores))
    positions = [np.searchsorted(keys, channel.top).astype(np.int32) for channel in collected.channels]
    whole = _steps(len(keys), collected.channels, positions, weighted=False)
    grid = keys[score_grid(whole, grid_scores)] if grid_scores else keys[:0]
    normal = _NormalCounts(keys, grid, n_images=len(images))
    _count_normal(images, collected, normal)

    by_subset: dict[SubsetKey, PixelMetrics] = {}
    for subset in sorted(set().union(*collected.subsets)):
        above, at, n_normal = normal.of_subset(subset)
        chosen = [i for i, channel in enumerate(collected.channels) if subset in channel.subsets]
        channels = [collected.channels[i] for i in chosen]
        where = [positions[i] for i in chosen]
        steps = _steps(len(keys), channels, where, weighted=False)
        has_weights = any(channel.weight != 1.0 for channel in channels)
        weighted = _steps(len(keys), channels, where, weighted=True) if has_weights else steps
        by_subset[subset] = PixelMetrics(
            auc_spro=(areas := _areas(above, at, steps, n_normal, fpr_limits)),
            auc_spro_weighted=_areas(above, at, weighted, n_normal, fpr_limits) if has_weights else dict(areas),
            pixel_auroc=_auroc(keys, above, at, collected.marked[subset], n_normal) if pixel_auroc else None,
            n_channels=len(channels),
            n_normal_px=n_normal,
            bad_saturation_channels=sum(channel.bad_saturation for channel in channels),
            has_weights=has_weights,
            curve=_curve(keys, above, at, steps, n_normal) if curve and subset == WHOLE and n_normal else None,
        )
    counts = _image_counts(collected, grid, normal) if grid_scores else None
    unmasked = [images[i].image_id for i in sorted(collected.unmasked)]
    return PixelEvaluation(by_subset, collected.subsets, unmasked, counts)


# --- pass 1: the defective images ------------------------------------------------------------------------------


def _collect(
    images: Sequence[EvaluationImage],
    subsets_of: Callable[[EvaluationImage, DefectChannel], Iterable[SubsetKey]],
    *,
    pixel_auroc: bool,
) -> _Collected:
    collected = _Collected()
    kept_bytes = 0
    for position, image in enumerate(images):
        channels = image.load_channels() if image.label_index else []
        if image.label_index and not channels:
            collected.unmasked.add(position)
        if not channels:
            collected.subsets.append(frozenset())
            continue
        score_map = _load(image)
        members: dict[SubsetKey, list[np.ndarray]] = {}
        for channel in channels:
            _check_mask(image, channel, score_map)
            subsets = frozenset({WHOLE, *subsets_of(image, channel)})
            area_px = channel.saturation_area_px
            top = np.sort(score_map[channel.mask])[-area_px:]
            collected.channels.append(
                _Channel(position, subsets, top, area_px, channel.weight, channel.saturation_was_zero)
            )
            for subset in subsets:
                members.setdefault(subset, []).append(channel.mask)
        collected.subsets.append(frozenset(members))
        union = _union([channel.mask for channel in channels])
        if pixel_auroc:
            whole_scores = score_map[union]
            for subset, masks in members.items():
                all_of_them = len(masks) == len(channels)
                scores = whole_scores if all_of_them else score_map[_union(masks)]
                collected.marked.setdefault(subset, []).append(scores)
        normal = score_map[~union]
        if kept_bytes + normal.nbytes <= KEPT_BYTES:
            kept_bytes += normal.nbytes
            collected.normal[position] = normal
        else:
            collected.normal_bits[position] = np.packbits(~union)
    if collected.channels and collected.unmasked:
        logger.warning("%d defective images have no masks; left out of the pixel metrics", len(collected.unmasked))
    return collected


def _load(image: EvaluationImage) -> np.ndarray:
    score_map = np.asarray(image.load_map(), dtype=np.float32)
    if score_map.ndim != 2 or not score_map.size:
        raise ImageError(f"anomaly map of {image.image_id}: expected (height, width), got shape {score_map.shape}")
    if not (np.isfinite(score_map.min()) and np.isfinite(score_map.max())):
        raise ImageError(f"anomaly map of {image.image_id} has values that are not finite; write finite scores")
    return score_map


def _check_mask(image: EvaluationImage, channel: DefectChannel, score_map: np.ndarray) -> None:
    what = f"mask channel {channel.defect_name!r} of {image.image_id}"
    if channel.mask.shape != score_map.shape:
        raise ImageError(f"{what} is {channel.mask.shape}, its anomaly map {score_map.shape} (height, width)")
    if channel.saturation_area_px < 1 or not channel.mask.any():
        raise ImageError(f"{what} marks no pixel or has a saturation area below 1; correct the mask")


def _union(masks: Sequence[np.ndarray]) -> np.ndarray:
    union: np.ndarray = np.logical_or.reduce(masks) if len(masks) > 1 else masks[0].astype(bool)
    return union


# --- pass 2: the normal pixels ---------------------------------------------------------------------------------


class _NormalCounts:
    """Normal pixels over and level with each key, by the set of subsets that their image is in."""

    def __init__(self, keys: np.ndarray, grid: np.ndarray, *, n_images: int) -> None:
        self.keys = keys
        self.grid = grid  # descending
        self.above: dict[frozenset[SubsetKey], np.ndarray] = {}
        self.at: dict[frozenset[SubsetKey], np.ndarray] = {}
        self.n_normal_px = np.zeros(n_images, np.int64)
        self.n_px: dict[frozenset[SubsetKey], int] = {}
        self.grid_above = np.zeros((n_images, 2 * len(grid)), np.int32)

    def add(self, group: frozenset[SubsetKey], scores: np.ndarray) -> None:
        """Count a batch; `scores` is sorted in place."""
        if not len(scores):
            return
        scores.sort()
        if group not in self.above:
            self.above[group] = np.zeros(len(self.keys), np.uint32)
            self.at[group] = np.zeros(len(self.keys), np.uint32)
            self.n_px[group] = 0
        self.n_px[group] += len(scores)
        if self.n_px[group] > np.iinfo(self.above[group].dtype).max:
            self.above[group], self.at[group] = self.above[group].astype(np.uint64), self.at[group].astype(np.uint64)
        for chunk in _chunks(len(self.keys)):
            keys, above, at = self.keys[chunk], self.above[group][chunk], self.at[group][chunk]
            not_above = np.searchsorted(scores, keys, side="right")
            above += (len(scores) - not_above).astype(above.dtype)
            level = np.flatnonzero(scores[not_above - 1] == keys)  # -1, the highest, where none is below: no match
            if len(level):
                lower = np.searchsorted(scores, keys[level], side="left")
                at[level] += (not_above[level] - lower).astype(at.dtype)

    def add_image(self, position: int, scores: np.ndarray) -> None:
        """Note one image's counts on the grid; `scores` is sorted in place if there is a grid."""
        self.n_normal_px[position] = len(scores)
        if len(self.grid):
            scores.sort()
            self.grid_above[position, 0::2] = len(scores) - np.searchsorted(scores, self.grid, side="right")
            self.grid_above[position, 1::2] = len(scores) - np.searchsorted(scores, self.grid, side="left")

    def of_subset(self, subset: SubsetKey) -> tuple[np.ndarray, np.ndarray, int]:
        """(above, at, number of normal pixels) over the good images and those of the subset."""
        groups = [group for group in self.above if not group or subset in group]
        n_normal = sum(self.n_px[group] for group in groups)
        dtype: np.dtype[Any] = np.dtype(np.uint32 if n_normal < 2**32 else np.uint64)
        above, at = np.zeros(len(self.keys), dtype), np.zeros(len(self.keys), dtype)
        for group in groups:
            above += self.above[group]
            at += self.at[group]
        return above, at, n_normal


def _count_normal(images: Sequence[EvaluationImage], collected: _Collected, normal: _NormalCounts) -> None:
    groups: dict[frozenset[SubsetKey], list[int]] = {}
    for position, group in enumerate(collected.subsets):
        if position not in collected.unmasked:
            groups.setdefault(group, []).append(position)
    batch = np.empty(BATCH_PX if len(normal.keys) < MANY_KEYS else LARGE_BATCH_PX, np.float32)
    for group, positions in groups.items():
        filled = 0
        for position in positions:
            scores = _normal_scores(images[position], position, collected)
            if filled + len(scores) > len(batch):
                normal.add(group, batch[:filled])
                filled = 0
            if len(scores) > len(batch):
                batch = np.empty(len(scores), np.float32)
            batch[filled : filled + len(scores)] = scores
            normal.add_image(position, batch[filled : filled + len(scores)])
            filled += len(scores)
        normal.add(group, batch[:filled])


def _normal_scores(image: EvaluationImage, position: int, collected: _Collected) -> np.ndarray:
    if position in collected.normal:
        return collected.normal.pop(position)
    scores = _load(image).reshape(-1)
    if position in collected.normal_bits:
        bits = collected.normal_bits[position]
        scores = scores[np.unpackbits(bits, count=len(scores)).view(bool)]
    return scores


# --- the figures -----------------------------------------------------------------------------------------------


def _steps(n_keys: int, channels: Sequence[_Channel], positions: Sequence[np.ndarray], *, weighted: bool) -> np.ndarray:
    """How much each key lifts the mean sPRO, float64 (key,). All 0 where the weights add up to 0."""
    weights = np.array([channel.weight if weighted else 1.0 for channel in channels])
    if not weights.sum() > 0:
        return np.zeros(n_keys)
    each = weights / weights.sum() / [channel.saturation_area_px for channel in channels]
    steps = np.zeros(n_keys)
    for position, step in zip(positions, each, strict=True):
        np.add.at(steps, position, step)
    return steps


def _areas(
    above: np.ndarray, at: np.ndarray, steps: np.ndarray, n_normal: int, limits: Sequence[float]
) -> dict[float, float | None]:
    """The formula of the module's docstring, divided by the limit; None without normal pixels or without weight."""
    if not n_normal or not steps.any():
        return dict.fromkeys(limits)
    areas = dict.fromkeys(limits, 0.0)
    for chunk in _chunks(len(steps)):
        low = above[chunk] / n_normal
        high = low + at[chunk] / n_normal
        middle = (low + high) / 2
        for limit in limits:
            share = limit - middle
            share[high > limit] = 0.0
            cut = np.flatnonzero((low < limit) & (high > limit))
            share[cut] = (limit - low[cut]) ** 2 / (2 * (high[cut] - low[cut]))
            areas[limit] += float(steps[chunk] @ share) / limit
    return dict(areas)


def _auroc(
    keys: np.ndarray, above: np.ndarray, at: np.ndarray, marked: Sequence[np.ndarray], n_normal: int
) -> float | None:
    """Probability that a marked pixel scores over a normal one, ties counting half."""
    if not n_normal:
        return None
    scores = np.concatenate(marked)
    scores.sort()
    pairs = 0.0
    counted = 0
    for chunk in _chunks(len(keys)):
        n_up_to = np.searchsorted(scores, keys[chunk], side="right")
        lower = n_normal - above[chunk].astype(np.float64) - at[chunk] / 2
        pairs += float(np.diff(n_up_to, prepend=counted) @ lower)
        counted = int(n_up_to[-1])
    return pairs / (len(scores) * n_normal)


def _chunks(length: int) -> list[slice]:
    """Keys are worked on in pieces, so that temporary arrays stay small."""
    return [slice(start, start + CHUNK_KEYS) for start in range(0, length, CHUNK_KEYS)]


def _distinct(scores: np.ndarray) -> np.ndarray:
    """The distinct values, ascending; `scores` is sorted in place (several times faster than np.unique)."""
    scores.sort()
    distinct: np.ndarray = scores[np.concatenate([[True], scores[1:] != scores[:-1]])]
    return distinct


def _curve(keys: np.ndarray, above: np.ndarray, at: np.ndarray, steps: np.ndarray, n_normal: int) -> SproCurve:
    lifting = np.flatnonzero(steps)[::-1]
    total = np.cumsum(steps[lifting])
    fpr, spro, threshold = (np.empty(2 * len(lifting) + 2) for _ in range(3))
    fpr[1:-1:2], fpr[2:-1:2] = above[lifting] / n_normal, (above[lifting] + at[lifting]) / n_normal
    spro[1:-1:2], spro[2:-1:2] = total - steps[lifting], total
    threshold[1:-1:2], threshold[2:-1:2] = np.nextafter(keys[lifting], np.float32(np.inf)), keys[lifting]
    fpr[0], spro[0], threshold[0] = 0.0, 0.0, np.nan
    fpr[-1], spro[-1], threshold[-1] = 1.0, total[-1], np.nan
    kept = thin_curve(fpr, spro, points=CURVE_POINTS)
    return SproCurve(fpr[kept], spro[kept], threshold[kept])


def _image_counts(collected: _Collected, grid: np.ndarray, normal: _NormalCounts) -> ImageCounts:
    spro_sum = np.zeros(normal.grid_above.shape)
    n_channels = np.zeros(len(spro_sum), np.int64)
    for channel in collected.channels:
        found = np.empty(2 * len(grid))
        found[0::2] = len(channel.top) - np.searchsorted(channel.top, grid, side="right")
        found[1::2] = len(channel.top) - np.searchsorted(channel.top, grid, side="left")
        spro_sum[channel.image] += found / channel.saturation_area_px
        n_channels[channel.image] += 1
    return ImageCounts(normal.grid_above, spro_sum, normal.n_normal_px, n_channels)
