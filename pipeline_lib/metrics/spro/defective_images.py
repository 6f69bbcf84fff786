"""Pass 1: the channels of the defective images, their scores, and the normal scores beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_contracts.errors import ImageError
from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage, SubsetKey
from pipeline_lib.metrics.unmarked import highest_unmarked

logger = logging.getLogger(__name__)

KEPT_BYTES = 256 * 2**20  # normal scores of defective images kept between the passes; beyond it maps are loaded twice


@dataclass(frozen=True)
class MarkedChannel:
    """A defect channel with the scores that count for its sPRO."""

    image: int
    subsets: frozenset[SubsetKey]
    top: np.ndarray  # its highest `saturation area` scores, ascending
    area_px: int
    saturation_area_px: int
    weight: float
    bad_saturation: bool


@dataclass
class Collected:
    """Everything about the defective images."""

    channels: list[MarkedChannel] = field(default_factory=list)
    subsets: list[frozenset[SubsetKey]] = field(default_factory=list)  # by image
    marked: dict[SubsetKey, list[np.ndarray]] = field(default_factory=dict)  # scores of the subset's marked pixels
    normal: dict[int, np.ndarray] = field(default_factory=dict)  # kept normal scores
    normal_bits: dict[int, np.ndarray] = field(default_factory=dict)  # packed mask, where they were not kept
    unmasked: set[int] = field(default_factory=set)
    highest_unmarked: dict[int, float] = field(default_factory=dict)  # of the defective images, away from all masks


def collect(
    images: Sequence[EvaluationImage],
    subsets_of: Callable[[EvaluationImage, DefectChannel], Iterable[SubsetKey]],
    *,
    pixel_auroc: bool,
) -> Collected:
    """Load every defective image once. Raises ImageError for maps and masks that do not fit."""
    collected = Collected()
    kept_bytes = 0
    for position, image in enumerate(images):
        channels = image.load_channels() if image.label_index else []
        if image.label_index and not channels:
            collected.unmasked.add(position)
        if not channels:
            collected.subsets.append(frozenset())
            continue
        score_map = load_map(image)
        members: dict[SubsetKey, list[np.ndarray]] = {}
        for channel in channels:
            _check_mask(image, channel, score_map)
            subsets = frozenset({WHOLE, *subsets_of(image, channel)})
            area_px = channel.saturation_area_px
            top = np.sort(score_map[channel.mask])[-area_px:]
            collected.channels.append(
                MarkedChannel(
                    position,
                    subsets,
                    top,
                    int(np.count_nonzero(channel.mask)),
                    area_px,
                    channel.weight,
                    channel.saturation_was_zero,
                )
            )
            for subset in subsets:
                members.setdefault(subset, []).append(channel.mask)
        collected.subsets.append(frozenset(members))
        union = _union([channel.mask for channel in channels])
        collected.highest_unmarked[position] = highest_unmarked(score_map, union)
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


def load_map(image: EvaluationImage) -> np.ndarray:
    """float32 (height, width). Raises ImageError where it is not finite or not two-dimensional."""
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
