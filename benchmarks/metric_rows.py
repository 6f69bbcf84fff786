"""AUC-sPRO against a plain evaluator that sorts all defect-free scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.real_features import bank, data_root, features
from benchmarks.rows import Row, paired, seconds
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.maps.map_files import resize_map
from pipeline_lib.metrics.spro.evaluate import evaluate_pixels
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
TOLERANCE = 1e-9
SATURATION = 0.5  # of a channel's area
SIZE_PX = 400


@dataclass(frozen=True)
class TestMap:
    """An anomaly map with the defects of its image."""

    score_map: np.ndarray  # float32 (height, width)
    channels: list[DefectChannel]


def spro(*, quick: bool) -> list[Row]:
    """160 maps of 400x400."""
    maps = real_maps(40 if quick else 160)
    images = [
        EvaluationImage(
            image_id=str(number),
            category="magnetic_tile",
            folder="defective" if item.channels else "good",
            label_index=int(bool(item.channels)),
            sha256="",
            score=0.0,
            load_map=partial(_value, item.score_map),
            load_channels=partial(_value, item.channels),
        )
        for number, item in enumerate(maps)
    ]

    def own() -> dict[float, float | None]:
        found = evaluate_pixels(images, fpr_limits=LIMITS, pixel_auroc=False, curve=False)
        return found.by_subset[WHOLE].auc_spro

    expected, found = plain_auc_spro(maps), own()
    difference = max(abs(expected[limit] - (found[limit] or 0.0)) for limit in LIMITS)
    lean = paired(lambda: seconds(own), lambda: seconds(lambda: lean_auc_spro(maps)), repetitions=3)
    difference = max(difference, max(abs(lean_auc_spro(maps)[limit] - expected[limit]) for limit in LIMITS))
    pairs = paired(lambda: seconds(own), lambda: seconds(lambda: plain_auc_spro(maps)), repetitions=3 if quick else 7)
    return [
        pairs.row(
            "spro",
            "plain evaluator: one sort of all defect-free scores, one curve a channel",
            wanted=3,
            equal_results=difference <= TOLERANCE,
            work=f"{len(maps)} maps of {SIZE_PX}x{SIZE_PX}, {sum(len(m.channels) for m in maps)} channels, five limits",
            largest_difference=difference,
            auc_spro_005=found[0.05],
            against_lean_evaluator=round(sorted(lean.ratios)[1], 2),
        )
    ]


def _value(value):  # type: ignore[no-untyped-def]
    return value


def real_maps(count: int) -> list[TestMap]:
    """Maps of magnetic-tile test images: distances to a bank of 2,000 rows on the 32x32 grid, resized to 400x400."""
    memory = MemoryBank(bank("narrow", "magnetic_tile", rows=2_000, out_of=100_000))
    queries = features("narrow", "magnetic_tile", "test", rows=count * 1024)
    grids = memory.query(queries)[0].reshape(count, 32, 32)
    return [
        TestMap(resize_map(grid, SIZE_PX, SIZE_PX), _channels(path))
        for grid, path in zip(grids, _test_images(count), strict=True)
    ]


def _test_images(count: int) -> list[Path]:
    from benchmarks.real_features import images_of

    return images_of("magnetic_tile", "test", count)


def _channels(path: Path) -> list[DefectChannel]:
    folder = data_root() / "magnetic_tile" / "ground_truth" / path.parent.name / path.stem
    channels = []
    for mask_path in sorted(folder.glob("*.png")):
        with Image.open(mask_path) as image:
            mask = np.array(image.convert("L").resize((SIZE_PX, SIZE_PX), Image.Resampling.NEAREST)) > 0
        if mask.any():
            area = max(1, int(SATURATION * mask.sum()))
            channels.append(DefectChannel(path.parent.name, mask, area))
    return channels


def plain_auc_spro(maps: Sequence[TestMap]) -> dict[float, float]:
    """Bergmann et al. 2022, straightforwardly: false positive rates from one sort of all defect-free scores, sPRO of
    every channel at every distinct score of a defect pixel, the mean of the curves, trapezoids up to each limit.
    """
    defect_free, tops = [], []
    for item in maps:
        marked = np.zeros(item.score_map.shape, bool)
        for channel in item.channels:
            marked |= channel.mask
            tops.append((np.sort(item.score_map[channel.mask]), channel.saturation_area_px))
        defect_free.append(item.score_map[~marked])
    normal = np.sort(np.concatenate(defect_free))
    thresholds = np.unique(np.concatenate([scores for scores, _ in tops]))[::-1]
    strict = (len(normal) - np.searchsorted(normal, thresholds, side="right")) / len(normal)
    reached = (len(normal) - np.searchsorted(normal, thresholds, side="left")) / len(normal)
    overlap = np.zeros(len(thresholds))
    for scores, area in tops:
        found = len(scores) - np.searchsorted(scores, thresholds, side="left")
        overlap += np.minimum(found / area, 1.0)
    overlap /= len(tops)
    # the curve: at each threshold from (strict, overlap before) to (reached, overlap), flat in between
    fpr = np.stack([strict, reached], axis=1).reshape(-1)
    mean_spro = np.stack([np.concatenate([[0.0], overlap[:-1]]), overlap], axis=1).reshape(-1)
    fpr, mean_spro = np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], mean_spro, [overlap[-1]]])
    return {limit: _area(fpr, mean_spro, limit) / limit for limit in LIMITS}


def lean_auc_spro(maps: Sequence[TestMap]) -> dict[float, float]:
    """The same from the area that each defect score adds, without curves: as lean as one sort of all scores gets."""
    defect_free, tops = [], []
    for item in maps:
        marked = np.zeros(item.score_map.shape, bool)
        for channel in item.channels:
            marked |= channel.mask
            tops.append(np.sort(item.score_map[channel.mask])[-channel.saturation_area_px :])
        defect_free.append(item.score_map[~marked])
    normal = np.sort(np.concatenate(defect_free))
    scores = np.concatenate(tops)
    weights = np.concatenate([np.full(len(top), 1 / len(top) / len(tops)) for top in tops])
    low = (len(normal) - np.searchsorted(normal, scores, side="right")) / len(normal)
    high = (len(normal) - np.searchsorted(normal, scores, side="left")) / len(normal)
    result = {}
    for limit in LIMITS:
        cut = (limit - low) ** 2 / (2 * np.where(high > low, high - low, 1.0))
        added = np.where(high <= limit, limit - (low + high) / 2, np.where(low >= limit, 0.0, cut))
        result[limit] = float(weights @ added) / limit
    return result


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    inside = int(np.searchsorted(x, limit, side="right"))
    if inside == len(x):
        return float(np.trapezoid(y, x))
    before, after = inside - 1, inside
    at_limit = y[before] + (y[after] - y[before]) * (limit - x[before]) / (x[after] - x[before])
    return float(np.trapezoid(np.append(y[:inside], at_limit), np.append(x[:inside], limit)))
