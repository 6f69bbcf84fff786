"""Calibration: blocks, rows found again, out-of-fold scores against a slow loop, thresholds and their promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.config import DecisionConfig, Promise
from data_contracts.errors import ConfigError
from data_contracts.manifests import Cells
from data_contracts.results import CategoryMetrics, MetricsDocument
from data_contracts.settings import ScoringSettings
from pipeline_lib.client.calibration import calibration_table, out_of_fold_scores, rows_in_bank, time_blocks
from pipeline_lib.metrics.decisions import add_decisions
from pipeline_lib.metrics.thresholds import (
    clopper_pearson_interval,
    clopper_pearson_upper,
    decision_threshold,
    excess_p_value,
    groups_for_a_bound,
    refuse_unbounded,
)
from pipeline_lib.storage.artifact_store import ArtifactStore

SCORING = ScoringSettings(seed=0, num_neighbors=1, image_score="max", search="exact", use_faiss=True)


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=60), st.integers(2, 12))
def test_blocks_are_contiguous_in_each_category_and_even(groups: list[str], n_blocks: int) -> None:
    blocks = time_blocks(groups, n_blocks)
    for name in set(groups):
        own = blocks[[group == name for group in groups]]
        if len(own) == 1:
            assert own.tolist() == [-1]
            continue
        assert (np.diff(own) >= 0).all()
        sizes = np.bincount(own)
        assert len(sizes) == min(n_blocks, len(own))
        assert sizes.max() - sizes.min() <= 1


def test_rows_are_found_again_by_their_bytes() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    found = rows_in_bank(rows[[4, 1, 4, 5]], rows[[1, 2, 4]], np.array(["x", "y", "z"]))
    assert sorted(zip(found.bank_row, found.image, strict=True)) == [(0, "z"), (1, "x"), (2, "z")]
    assert rows_in_bank(rows, rows[:0], np.array([], dtype=np.str_)).empty


def stored_features(store: ArtifactStore, images: dict[str, np.ndarray]) -> pd.DataFrame:
    """PATCH_FEATURES of made-up images (patch, dim) of one category."""
    rows = []
    for image_id, patches in images.items():
        manifest = store.write_array("image_features", patches.astype(np.float16))
        rows.append(
            {"image_id": image_id, "category": "c", "image_sha256": "", "image_bytes": 1, "grid_height": 2,
             "grid_width": 2, "dim": patches.shape[1], "path": manifest.path, "sha256": manifest.sha256,
             "size_bytes": manifest.size_bytes, "cells": Cells.even((2, 2)).for_table()}
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_out_of_fold_scores_equal_a_loop_over_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    store = ArtifactStore(tmp_path)
    images = {f"i{n}": rng.normal(size=(4, 3)).astype(np.float16).astype(np.float32) for n in range(7)}
    bank = np.concatenate([patches[:2] for patches in images.values()])
    others = rng.normal(size=(3, 3)).astype(np.float32)  # of another client: never taken out
    origins = rows_in_bank(np.concatenate([others, bank]), bank, np.repeat(list(images), 2))
    found = out_of_fold_scores(
        stored_features(store, images), store, np.concatenate([others, bank]), origins, SCORING, n_blocks=3
    )
    blocks = time_blocks(["c"] * 7, 3)
    for number, patches in enumerate(images.values()):
        kept = [others] + [p[:2] for i, p in enumerate(images.values()) if blocks[i] != blocks[number]]
        distances = np.linalg.norm(patches[:, None] - np.concatenate(kept)[None], axis=2)
        assert found.score[number] == pytest.approx(distances.min(axis=1).max(), rel=1e-5)
    assert found.block.tolist() == blocks.tolist()


def test_images_that_nothing_is_left_to_score_are_left_out(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    patches = np.ones((4, 3), np.float32)
    table = stored_features(store, {"only": patches})
    empty = out_of_fold_scores(table, store, patches, rows_in_bank(patches, patches, np.array(["only"] * 4)), SCORING,
                               n_blocks=5)  # fmt: skip
    assert empty.empty
    assert calibration_table("client_0", {"c": empty}).empty


def test_the_threshold_is_an_order_statistic_and_says_what_its_number_supports() -> None:
    scores = np.arange(1.0, 100.0)
    threshold = decision_threshold(scores, 0.05)
    assert threshold is not None
    assert (threshold.value, threshold.nominal_rate) == (95.0, pytest.approx(0.05))
    assert threshold.upper_bound == pytest.approx(clopper_pearson_upper(4, 99))
    few = decision_threshold(scores[:31], 0.05)
    assert few is not None
    assert (few.value, few.nominal_rate) == (31.0, pytest.approx(1 / 32))
    assert few.upper_bound == pytest.approx(1 - 0.05 ** (1 / 31))
    tiny = decision_threshold(scores[:4], 0.05)
    assert tiny is not None
    assert (tiny.value, tiny.nominal_rate) == (4.0, pytest.approx(0.2))
    assert decision_threshold(scores[:0], 0.05) is None


def test_an_interpolated_threshold_lies_between_two_scores_as_the_target_between_their_rates() -> None:
    scores = np.concatenate([np.arange(30.0), [40.0]])
    found = decision_threshold(scores, 0.05, promise="interpolated")
    assert found is not None
    assert found.value == pytest.approx(0.6 * 29 + 0.4 * 40)  # 0.05 = 0.6 * 2/32 + 0.4 * 1/32
    assert found.nominal_rate == pytest.approx(0.05)
    assert found.upper_bound == pytest.approx(clopper_pearson_upper(1, 31))  # that of the score below
    exact = decision_threshold(np.arange(1.0, 100.0), 0.05, promise="interpolated")
    assert exact == decision_threshold(np.arange(1.0, 100.0), 0.05)  # the 95th of 99
    assert decision_threshold(scores[:4], 0.05, promise="interpolated") == decision_threshold(scores[:4], 0.05)
    groups = np.array([0, 0, 0, 1, 1, *range(2, 28)])  # 28 groups: a score of group 0 is a third of one
    values = np.concatenate([[50.0, 60.0, 1.0, 2.0, 70.0], np.arange(3.0, 29.0)])
    by_group = decision_threshold(values, 0.05, promise="interpolated", groups=groups)
    assert by_group is not None
    above = 0.05 * 29 - 1  # groups: half of one is above 60, 5/6 above 50
    assert above < 0.5
    assert by_group.value == pytest.approx(60 + 10 * (0.5 - above) / 0.5)


@pytest.mark.parametrize("n", [31, 70])
def test_interpolated_rates_are_the_target_and_at_most_that_where_densities_fall(n: int) -> None:
    rng = np.random.default_rng(n)
    draws: list[tuple[str, Callable[..., np.ndarray], Callable[[float], float]]] = [
        ("uniform", rng.random, lambda t: 1 - t),
        ("exponential", rng.standard_exponential, lambda t: math.exp(-t)),
        ("normal", rng.standard_normal, lambda t: 0.5 * math.erfc(t / math.sqrt(2))),
    ]
    for name, draw, rate in draws:
        rates: dict[Promise, list[float]] = {"interpolated": [], "rate": []}
        for scores in draw(size=(1500, n)):
            for promise, own in rates.items():
                found = decision_threshold(scores, 0.05, promise=promise)
                assert found is not None
                own.append(rate(found.value))
        interpolated, limited = np.mean(rates["interpolated"]), np.mean(rates["rate"])
        assert limited == pytest.approx(math.floor(0.05 * (n + 1)) / (n + 1), abs=0.002)
        assert max(limited, 0.043) - 0.002 < interpolated < 0.052
        if name == "uniform":  # its density does not fall: the mean of the two rates is met
            assert interpolated == pytest.approx(0.05, abs=0.002)


def test_59_images_are_needed_for_a_bound_at_5_percent() -> None:
    assert groups_for_a_bound(0.05) == 59
    assert groups_for_a_bound(0.01) == 299
    assert clopper_pearson_upper(0, 59) <= 0.05 < clopper_pearson_upper(0, 58)


@pytest.mark.parametrize(("count", "n"), [(0, 20), (3, 40), (20, 20)])
def test_the_upper_bound_solves_the_binomial_equation(count: int, n: int) -> None:
    bound = clopper_pearson_upper(count, n)
    at_most = sum(math.comb(n, i) * bound**i * (1 - bound) ** (n - i) for i in range(count + 1))
    assert at_most == pytest.approx(1.0 if count == n else 0.05)
    interval = clopper_pearson_interval(count, n)
    assert interval is not None
    assert interval[0] <= count / n <= interval[1]


def test_on_exchangeable_scores_the_promises_hold() -> None:
    rng = np.random.default_rng(8)
    rates, bounded, surprised = [], [], []
    for _ in range(1500):
        threshold = decision_threshold(rng.random(80), 0.05)
        assert threshold is not None
        rates.append(1 - threshold.value)
        assert threshold.upper_bound is not None
        bounded.append(1 - threshold.value <= threshold.upper_bound)
        false_alarms = int((rng.random(60) > threshold.value).sum())
        surprised.append(excess_p_value(threshold, false_alarms, 60) <= 0.05)
    assert np.mean(rates) == pytest.approx(4 / 81, abs=0.003)
    assert np.mean(bounded) == pytest.approx(0.95, abs=0.02)
    assert np.mean(surprised) <= 0.06  # the number is whole, so that the test is at most as large as its level


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        decision_threshold(np.ones(5), rate)


def test_decisions_are_counted_on_each_half_and_by_client() -> None:
    scores = pd.DataFrame(
        {"image_id": list("vwxyz"), "category": "c", "label_index": [0, 0, 0, 1, 1],
         "score": [1.0, 2.0, 99.0, 50.0, 98.5],
         "sha256": ["0a", "1a", "2a", "3a", "4a"]}
    )  # fmt: skip
    calibration = pd.DataFrame(
        {"client_id": ["a"] * 60 + ["b"] * 39, "category": "c", "block": 0, "score": np.arange(1.0, 100.0)}
    )
    documents = {
        subset: MetricsDocument(
            experiment="e", config_hash="", seed=0, subset=subset,
            categories={"c": CategoryMetrics(), "d": CategoryMetrics()},
        )
        for subset in ("all", "development", "report")
    }  # fmt: skip
    add_decisions(documents, calibration, scores, DecisionConfig(promise="rate"))
    whole = documents["all"].categories["c"].decision
    assert whole is not None
    assert (whole.threshold, whole.false_alarms, whole.n_good, whole.found, whole.n_defective) == (95.0, 1, 3, 1, 2)
    assert whole.note == ""
    assert whole.by_client["a"].threshold == 58.0
    assert whole.by_client["b"].upper_bound == pytest.approx(clopper_pearson_upper(1, 39))
    halves = [documents[half].categories["c"].decision for half in ("development", "report")]
    assert [(h.n_good, h.n_defective) for h in halves if h] == [(2, 1), (1, 1)]
    assert documents["all"].categories["d"].decision is None


def slow_threshold(scores: list[float], groups: list[int], rate: float) -> tuple[float, float]:
    """(threshold, groups above it): each group counts with the share of its images that are above; by trying all."""
    members: dict[int, list[float]] = {}
    for number, (score, group) in enumerate(zip(scores, groups, strict=True)):
        members.setdefault(group if group >= 0 else -1 - number, []).append(score)
    found = (max(scores), 0.0)
    for value in sorted(scores, reverse=True):
        above = sum(sum(score > value for score in own) / len(own) for own in members.values())
        if above > rate * (len(members) + 1) - 1 + 1e-9:
            break
        found = (value, above)
    return found


@given(
    st.lists(st.tuples(st.integers(-1, 6), st.floats(0, 1)), min_size=1, max_size=60, unique_by=lambda one: one[1]),
    st.floats(0.02, 0.6),
)
def test_groups_count_once_each_as_in_a_loop_over_all_thresholds(images: list[tuple[int, float]], rate: float) -> None:
    groups, scores = [group for group, _ in images], [score for _, score in images]
    threshold = decision_threshold(np.array(scores), rate, groups=np.array(groups))
    assert threshold is not None
    value, above = slow_threshold(scores, groups, rate)
    assert (threshold.value, threshold.groups_above) == (value, pytest.approx(above))
    alone = decision_threshold(np.array(scores), rate)
    assert alone is not None
    assert alone == replace(
        decision_threshold(np.array(scores), rate, groups=np.full(len(scores), -1)) or alone, grouped=False
    )
    assert alone.value == sorted(scores)[min(len(scores), max(1, math.ceil((len(scores) + 1) * (1 - rate) - 1e-9))) - 1]


def test_a_bound_is_kept_by_its_threshold_and_refused_where_groups_are_too_few() -> None:
    rate, bound = (decision_threshold(np.arange(59.0), 0.05, promise=promise) for promise in ("rate", "bound"))
    assert rate is not None
    assert bound is not None
    assert (rate.value, bound.value) == (56.0, 58.0)
    assert rate.upper_bound == pytest.approx(0.103, abs=5e-4)  # 59 images bound 5 % at their largest score alone
    assert bound.upper_bound <= 0.05
    with pytest.raises(ConfigError, match=r"needs 59 normal images, there are 58; .* to 0.051, or set .*promise: rate"):
        decision_threshold(np.arange(58.0), 0.05, promise="bound")
    assert decision_threshold(np.arange(58.0), 0.051, promise="bound") is not None
    groups = np.arange(300) % 20
    with pytest.raises(ConfigError, match="needs 59 groups of normal images, there are 20"):
        decision_threshold(np.arange(300.0), 0.05, promise="bound", groups=groups)


def test_what_is_promised_names_its_condition() -> None:
    alone = decision_threshold(np.arange(48.0), 0.05)
    grouped = decision_threshold(np.arange(48.0), 0.05, groups=np.arange(48) % 24)
    assert alone is not None
    assert grouped is not None
    assert alone.promise() == (
        "threshold from 48 normal images: of good images about 4.1 % are called defective, at most 9.5 % with 95 % "
        "confidence, if new images are like these, and each of these shows another part (if several show "
        "one: dataset.group)"
    )
    assert grouped.promise().startswith("threshold from 48 normal images of 24 groups: of good images about 4.0 %")
    many = replace(alone, by_client=tuple((f"station-{n}", 8) for n in range(6)))
    assert many.promise().startswith("threshold from 48 normal images of 6 clients: of good")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-1, 5)), min_size=1, max_size=60), st.integers(2, 12))
def test_blocks_hold_whole_groups_of_a_category(images: list[tuple[str, int]], n_blocks: int) -> None:
    categories, groups = [category for category, _ in images], [group for _, group in images]
    blocks = time_blocks(categories, n_blocks, groups)
    for category in set(categories):
        units: dict[int, set[int]] = {}
        for number, (name, group) in enumerate(images):
            if name == category:
                units.setdefault(group if group >= 0 else -1 - number, set()).add(int(blocks[number]))
        assert all(len(found) == 1 for found in units.values())
        of_units = sorted(found.pop() for found in units.values())
        if len(of_units) == 1:
            assert of_units == [-1]
            continue
        sizes = np.bincount(of_units)
        assert len(sizes) == min(n_blocks, len(of_units))
        assert sizes.max() - sizes.min() <= 1


def test_intervals_of_counts_go_by_group_and_halves_part_none() -> None:
    names = [f"{n:02d}" for n in range(40)]
    scores = pd.DataFrame(
        {"image_id": names, "category": "c", "label_index": [0] * 30 + [1] * 10,
         "score": [200.0] * 6 + [1.0] * 24 + [200.0] * 10, "sha256": [f"{n % 16:x}" for n in range(40)]}
    )  # fmt: skip
    group_of = {name: f"c/{number // 6}" for number, name in enumerate(names[:30])}
    calibration = pd.DataFrame(
        {"client_id": "a", "category": "c", "block": 0, "score": np.arange(99.0), "group": np.arange(99) // 3}
    )
    documents = {
        subset: MetricsDocument(
            experiment="e", config_hash="", seed=0, subset=subset, categories={"c": CategoryMetrics()}
        )
        for subset in ("all", "development", "report")
    }
    add_decisions(documents, calibration, scores, DecisionConfig(promise="rate"), group_of=group_of)
    whole = documents["all"].categories["c"].decision
    assert whole is not None
    assert (whole.n_calibration, whole.n_groups, whole.false_alarms, whole.n_good) == (99, 33, 6, 30)
    assert whole.realised_ci95 == clopper_pearson_interval(1, 5)  # one of five groups, not six of thirty images
    assert whole.found_ci95 == clopper_pearson_interval(10, 10)
    threshold = decision_threshold(np.arange(99.0), 0.05, groups=np.arange(99) // 3)
    assert threshold is not None
    assert whole.excess_p_value == excess_p_value(threshold, 1, 5)
    counts = [documents[half].categories["c"].decision for half in ("development", "report")]
    assert {half.false_alarms for half in counts if half} == {0, 6}
    add_decisions(documents, calibration, scores, DecisionConfig(promise="bound"), group_of=group_of)
    refused = documents["all"].categories["c"].decision
    assert refused is not None
    assert (refused.threshold, refused.promise) == (None, "bound")
    assert "needs 59 groups of normal images, there are 33" in refused.note


def test_too_few_groups_for_a_rate_are_said_with_the_number_that_is_needed() -> None:
    scores = pd.DataFrame({"image_id": ["x"], "category": "c", "label_index": [0], "score": [1.0], "sha256": ["0a"]})
    document = MetricsDocument(
        experiment="e", config_hash="", seed=0, subset="all", categories={"c": CategoryMetrics()}
    )
    for n_groups, note in (
        (
            8,
            "8 groups of normal images are too few for a nominal rate of 5 %: the threshold is their largest score; 19",
        ),
        (18, "18 groups of normal images are too few"),
        (19, ""),
    ):
        group = np.arange(80) % n_groups
        calibration = pd.DataFrame(
            {"client_id": "a", "category": "c", "block": 0, "score": np.arange(80.0), "group": group}
        )
        add_decisions({"all": document}, calibration, scores, DecisionConfig(promise="rate"))
        decision = document.categories["c"].decision
        assert decision is not None
        assert decision.note.startswith(note)
        assert bool(decision.note) == bool(note)


def test_a_bound_is_refused_before_anything_is_scored() -> None:
    images = pd.DataFrame({"image_id": [f"{n}" for n in range(120)], "category": ["a"] * 60 + ["b"] * 60})
    bound = DecisionConfig(promise="bound")
    refuse_unbounded(images, bound)
    with pytest.raises(ConfigError, match="needs 59 groups of normal images, b has 31"):
        refuse_unbounded(images, bound, {f"{n}": "b/x" for n in range(90, 120)})
    refuse_unbounded(images[:20], DecisionConfig(promise="rate"))
    refuse_unbounded(images[:20], DecisionConfig(promise="bound", blocks=0))
