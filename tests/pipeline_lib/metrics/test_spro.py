"""AUC-sPRO against the official evaluator's figures and against brute force."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import ImageError
from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.spro import areas, defective_images, normal_pixels
from pipeline_lib.metrics.spro.evaluate import evaluate_pixels
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage, PixelEvaluation, SubsetKey
from tests.reference_spro import reference_area, reference_curve, reference_pixel_auroc

GOLDEN = Path(os.environ.get("FEDPATCH_GOLDEN", Path(__file__).parents[4] / "shared" / "golden")) / "spro"
LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)


def make_images(maps: Sequence[np.ndarray], channels: Sequence[list[DefectChannel]]) -> list[EvaluationImage]:
    return [
        EvaluationImage(
            image_id=str(i),
            category="cat",
            folder="bad" if own else "good",
            label_index=int(bool(own)),
            sha256="",
            score=float(score_map.max()),
            load_map=lambda score_map=score_map: score_map,  # type: ignore[misc]
            load_channels=lambda own=own: own,  # type: ignore[misc]
        )
        for i, (score_map, own) in enumerate(zip(maps, channels, strict=True))
    ]


def by_defect(image: EvaluationImage, channel: DefectChannel) -> list[SubsetKey]:
    return [("defect", channel.defect_name)]


def random_case(seed: int, *, levels: int | None, n: int = 7) -> tuple[list[np.ndarray], list[list[DefectChannel]]]:
    """Images of several sizes; overlapping channels, absolute and relative saturation, a saturation beyond the area."""
    rng = np.random.default_rng(seed)
    maps, channels = [], []
    for i in range(n):
        height, width = rng.integers(5, 14, size=2)
        score_map = rng.gamma(2.0, size=(height, width))
        own = []
        for _ in range(0 if i % 3 == 0 else rng.integers(1, 4)):
            top, left = rng.integers(0, height - 2), rng.integers(0, width - 2)
            mask = np.zeros((height, width), bool)
            mask[top : top + rng.integers(1, 5), left : left + rng.integers(1, 5)] = True
            score_map[mask] += rng.gamma(1.0)
            area = int(mask.sum())
            saturation = int(rng.choice([1, max(1, area // 2), area, area + 3]))
            own.append(DefectChannel(str(rng.choice(["a", "b"])), mask, saturation, weight=float(rng.uniform(0, 2))))
        if levels:
            score_map = np.floor(score_map * levels) / levels
        maps.append(score_map.astype(np.float32))
        channels.append(own)
    return maps, channels


def assert_equals_reference(
    result: PixelEvaluation, maps: Sequence[np.ndarray], channels: Sequence[list[DefectChannel]]
) -> None:
    names = {channel.defect_name for own in channels for channel in own}
    selectors: dict[SubsetKey, Callable[[int, DefectChannel], bool]] = {WHOLE: lambda i, c: True}
    selectors |= {("defect", name): lambda i, c, name=name: c.defect_name == name for name in names}  # type: ignore[misc]
    assert set(result.by_subset) == set(selectors)
    for subset, select in selectors.items():
        got = result.by_subset[subset]
        curve = reference_curve(maps, channels, select=select)
        weighted = reference_curve(maps, channels, select=select, weighted=True)
        for limit in LIMITS:
            assert got.auc_spro[limit] == pytest.approx(reference_area(curve, limit), abs=1e-9)
            assert got.auc_spro_weighted[limit] == pytest.approx(reference_area(weighted, limit), abs=1e-9)
        assert got.pixel_auroc == pytest.approx(reference_pixel_auroc(maps, channels, select=select), abs=1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([None, 1, 3, 50]))
def test_equals_brute_force(seed: int, levels: int | None) -> None:
    maps, channels = random_case(seed, levels=levels)
    result = evaluate_pixels(make_images(maps, channels), fpr_limits=LIMITS, subsets_of=by_defect)
    assert_equals_reference(result, maps, channels)


def test_batches_and_second_loading_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defective_images, "KEPT_BYTES", 300)
    monkeypatch.setattr(normal_pixels, "BATCH_PX", 90)
    monkeypatch.setattr(areas, "CHUNK_KEYS", 5)
    maps, channels = random_case(5, levels=4, n=12)
    result = evaluate_pixels(make_images(maps, channels), fpr_limits=LIMITS, subsets_of=by_defect, grid_scores=20)
    assert_equals_reference(result, maps, channels)


def golden_cases() -> list[Any]:
    if not GOLDEN.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"golden cases are not at {GOLDEN}"))]
    return [pytest.param(case, id=case["name"]) for case in json.loads((GOLDEN / "cases.json").read_text())]


@pytest.mark.parametrize("case", golden_cases())
def test_equals_the_official_evaluator(case: dict[str, Any]) -> None:
    with np.load(GOLDEN / f"{case['name']}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    height, width = case["height"], case["width"]
    entries = {entry["pixel_value"]: entry for entry in case["defects_config"]}
    channels: list[list[DefectChannel]] = [[] for _ in arrays["maps"]]
    for item in case["channels"]:
        bits = arrays[f"mask_{item['image']:03d}_{item['channel']}"]
        mask = np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
        entry = entries[item["pixel_value"]]
        threshold, area = entry["saturation_threshold"], int(mask.sum())
        saturation = int(threshold * area) if entry["relative_saturation"] else min(threshold, area)
        channels[item["image"]].append(DefectChannel(entry["defect_name"], mask, saturation))
    maps = [score_map.astype(np.float32) for score_map in arrays["maps"]]
    result = evaluate_pixels(make_images(maps, channels), fpr_limits=LIMITS, subsets_of=by_defect).by_subset
    for limit, expected in case["expected_auc_spro"].items():
        assert result[WHOLE].auc_spro[float(limit)] == pytest.approx(expected, abs=3e-4)
    assert len(result) == 1 + len(case["expected_auc_spro_per_defect"])
    for name, by_limit in case["expected_auc_spro_per_defect"].items():
        for limit, expected in by_limit.items():
            assert result["defect", name].auc_spro[float(limit)] == pytest.approx(expected, abs=3e-4)


def large_case(seed: int = 0) -> tuple[list[np.ndarray], list[list[DefectChannel]]]:
    rng = np.random.default_rng(seed)
    maps, channels = [], []
    for i in range(30):
        score_map = np.sqrt(rng.chisquare(8, size=(100, 120))).astype(np.float32)
        own = []
        if i % 2:
            mask = np.zeros(score_map.shape, bool)
            mask[20 : 20 + i, 10:60] = True
            score_map[mask] += rng.uniform(0, 3)
            own = [DefectChannel("a", mask, int(mask.sum()) // 2)]
        maps.append(score_map)
        channels.append(own)
    return maps, channels


def test_the_thinned_curve_keeps_the_area() -> None:
    maps, channels = large_case()
    whole = evaluate_pixels(make_images(maps, channels), fpr_limits=LIMITS).by_subset[WHOLE]
    curve = whole.curve
    assert curve is not None
    assert 100 < len(curve.fpr) <= 1000
    assert (np.diff(curve.fpr) >= 0).all()
    assert (np.diff(curve.spro) >= 0).all()
    assert (curve.fpr[0], curve.spro[0], curve.fpr[-1]) == (0, 0, 1)
    for limit in LIMITS:
        assert curve.area(limit) == pytest.approx(whole.auc_spro[limit], abs=1e-4)


def test_a_random_map_gets_about_half_the_limit_and_a_perfect_one_1() -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((200, 200), bool)
    mask[50:150, 50:150] = True
    channel = DefectChannel("a", mask, 10_000)
    noise = rng.random((200, 200), dtype=np.float32)
    images = make_images([noise], [[channel]])
    got = evaluate_pixels(images, fpr_limits=LIMITS).by_subset[WHOLE].auc_spro
    for limit in LIMITS:
        assert got[limit] == pytest.approx(limit / 2, rel=0.2)
    perfect = evaluate_pixels(make_images([mask.astype(np.float32)], [[channel]]), fpr_limits=LIMITS).by_subset[WHOLE]
    assert list(perfect.auc_spro.values()) == pytest.approx([1.0] * len(LIMITS), abs=1e-9)
    assert perfect.pixel_auroc == 1.0


def test_undefined_is_none() -> None:
    score_map = np.ones((4, 4), np.float32)
    nothing = evaluate_pixels(make_images([score_map], [[]]), fpr_limits=LIMITS).by_subset[WHOLE]
    assert nothing.auc_spro == dict.fromkeys(LIMITS)
    assert nothing.pixel_auroc is None
    everything = DefectChannel("a", np.ones((4, 4), bool), 3)
    no_normal = evaluate_pixels(make_images([score_map], [[everything]]), fpr_limits=LIMITS).by_subset[WHOLE]
    assert no_normal.auc_spro == dict.fromkeys(LIMITS)
    assert no_normal.pixel_auroc is None
    assert no_normal.n_channels == 1


def test_a_defective_image_without_masks_counts_nowhere() -> None:
    maps, channels = random_case(3, levels=None)
    alone = evaluate_pixels(make_images(maps, channels), fpr_limits=LIMITS)
    unmasked = EvaluationImage("x", "cat", "bad", 1, "", 9.0, lambda: np.full((9, 9), 9, np.float32), list)
    result = evaluate_pixels([*make_images(maps, channels), unmasked], fpr_limits=LIMITS)
    assert result.unmasked == ["x"]
    assert result.by_subset[WHOLE].auc_spro == alone.by_subset[WHOLE].auc_spro


def test_weights_of_zero_leave_the_weighted_mean_undefined() -> None:
    mask = np.eye(4, dtype=bool)
    images = make_images([np.ones((4, 4))], [[DefectChannel("a", mask, 1, weight=0.0)]])
    got = evaluate_pixels(images, fpr_limits=LIMITS).by_subset[WHOLE]
    assert got.has_weights
    assert got.auc_spro_weighted == dict.fromkeys(LIMITS)
    assert got.auc_spro == pytest.approx({limit: limit / 2 for limit in LIMITS})


def test_more_pixels_than_32_bits_hold() -> None:
    keys = np.array([0.5, 1.5], np.float32)
    subset: SubsetKey = ("defect", "a")
    counts = normal_pixels.NormalCounts(keys, {subset: np.array([1], np.int32)}, keys[:0], n_images=0)
    assert counts.good is not None
    for part in (counts.whole, counts.good):
        part.n_px = 2**32 - 2
        part.above[:], part.at[:] = [2**32 - 2, 7], [0, 3]
    counts.add(frozenset(), np.array([1.0, 1.5], np.float32))
    counts.add(frozenset([WHOLE, subset]), np.array([2.0, 0.0], np.float32))
    above, at, n_normal = counts.of_subset(WHOLE)
    assert (above.tolist(), at.tolist(), n_normal) == ([2**32 + 1, 8], [0, 4], 2**32 + 2)
    above, at, n_normal = counts.of_subset(subset)
    assert (above.tolist(), at.tolist(), n_normal) == ([8], [4], 2**32 + 2)


def test_errors_name_the_image() -> None:
    mask = np.ones((4, 4), bool)
    good = np.ones((4, 4), np.float32)
    good[0, 0] = np.nan
    with pytest.raises(ImageError, match=r"anomaly map of 0 .*not finite"):
        evaluate_pixels(make_images([good], [[DefectChannel("a", mask, 1)]]), fpr_limits=LIMITS)
    with pytest.raises(ImageError, match=r"'a' of 0 is \(4, 4\), its anomaly map \(5, 4\)"):
        evaluate_pixels(make_images([np.ones((5, 4))], [[DefectChannel("a", mask, 1)]]), fpr_limits=LIMITS)
    with pytest.raises(ImageError, match="marks no pixel"):
        evaluate_pixels(make_images([np.ones((4, 4))], [[DefectChannel("a", ~mask, 1)]]), fpr_limits=LIMITS)


def test_memory_is_bounded() -> None:
    """120 good maps of 500 x 400 pixels are 96 MB; a batch and the keys are far less."""

    def load() -> np.ndarray:
        return np.random.default_rng(0).random((500, 400), dtype=np.float32)

    mask = np.zeros((500, 400), bool)
    mask[:50, :50] = True
    images = [EvaluationImage(str(i), "cat", "good", 0, "", 0.0, load, list) for i in range(120)]
    images.append(EvaluationImage("d", "cat", "bad", 1, "", 0.0, load, lambda: [DefectChannel("a", mask, 100)]))
    tracemalloc.start()
    evaluate_pixels(images, fpr_limits=LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.slow
@pytest.mark.exhaustive
def test_400_maps_of_1000_x_750_pixels_within_2_gb() -> None:
    """12 defects in 5 folders and 2 groups, a tenth of each defective image marked: 15 million marked pixels."""
    base = np.random.default_rng(0).random((750, 1000), dtype=np.float32)
    mask = np.zeros((750, 1000), bool)
    mask[:250, :300] = True

    def image(number: int) -> EvaluationImage:
        bad = number % 2
        return EvaluationImage(
            image_id=str(number),
            category="cat",
            folder=f"folder{number % 5}" if bad else "good",
            label_index=bad,
            sha256="",
            score=0.0,
            load_map=lambda: base * np.float32(1 + number / 1e4),
            load_channels=lambda: [DefectChannel(f"defect{number % 12}", mask, 75_000)],
        )

    def subsets(image: EvaluationImage, channel: DefectChannel) -> list[SubsetKey]:
        number = int(image.image_id)
        return [("defect", channel.defect_name), ("folder", image.folder), ("group", str(number % 3 // 2))]

    images = [image(number) for number in range(400)]
    tracemalloc.start()
    result = evaluate_pixels(images, fpr_limits=LIMITS, subsets_of=subsets, grid_scores=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.by_subset[WHOLE].n_channels == 200
    assert peak < 2e9
