"""The benchmarks' checks must fail where results are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.against import against
from benchmarks.checks import auroc_not_shown_to_be_lower, distances_are_exact, nearest_distances, replay_is_exact
from benchmarks.rows import Pairs, Row, paired, spread
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from tests.reference_coreset import replay


def features(rows: int = 900, dim: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32) + np.float32(50)


def test_replay_passes_an_exact_selection_and_agrees_with_the_slow_reference() -> None:
    matrix = features()
    indices = greedy_coreset_selection(matrix, 90, rng=np.random.default_rng(1), threads=1).indices
    exact, smallest = replay_is_exact(matrix, indices, rows_per_block=77)
    own, largest, _ = replay(matrix, indices)
    assert exact
    assert smallest == pytest.approx((own[1:] / largest[1:]).min(), rel=1e-9)


def test_replay_refuses_one_wrong_pick_and_a_row_taken_twice() -> None:
    matrix = features()
    indices = greedy_coreset_selection(matrix, 60, rng=np.random.default_rng(1), threads=1).indices
    swapped = indices.copy()
    swapped[30] = next(row for row in range(len(matrix)) if row not in indices)
    exact, smallest = replay_is_exact(matrix, swapped)
    assert not exact
    assert smallest < 1 - 1e-5
    twice = indices.copy()
    twice[5] = twice[4]
    assert replay_is_exact(matrix, twice) == (False, 0.0)


def test_nearest_distances_are_those_of_brute_force() -> None:
    bank, queries = features(200), features(50)[::-1] + np.float32(0.1)
    expected = np.linalg.norm(queries[:, None].astype(np.float64) - bank[None], axis=2).min(axis=1)
    found = nearest_distances(queries, bank, rows_per_block=7)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert distances_are_exact(found.astype(np.float32), expected, queries)[0]
    assert not distances_are_exact(found * 1.001, expected, queries)[0]


def test_rows_say_whether_they_reached_what_was_wanted() -> None:
    pairs = Pairs(own=[1.0, 2.0, 1.0], peer=[10.0, 10.0, 30.0])
    row = pairs.row("x", "peer", wanted=9, equal_results=True, work="w")
    assert (row.ratio_median, row.ratio_min, row.repetitions, row.reached) == (10.0, 5.0, 3, True)
    assert not pairs.row("x", "peer", wanted=11, equal_results=True, work="w").reached
    assert not pairs.row("x", "peer", wanted=9, equal_results=False, work="w").reached
    small = Row("m", "itself", 1.2, 1.1, 1, True, wanted=1.3, direction="at most")
    assert small.reached
    assert {"name", "peer", "ratio_median", "ratio_min", "repetitions", "equal_results"} <= set(small.as_dict())


def test_spread_is_the_range_in_units_of_the_median() -> None:
    assert spread([2.0, 1.0, 4.0]) == 1.5
    assert Pairs([2.0, 1.0, 4.0], [1.0, 1.0, 1.0]).row("x", "p", wanted=1, equal_results=True, work="w").figures[
        "own_spread"
    ] == pytest.approx(1.5)


def test_another_directory_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no checkout of this project"):
        against("coreset_1pct", tmp_path, quick=True, threads=1)


def test_both_sides_run_in_turn() -> None:
    order: list[str] = []
    pairs = paired(
        lambda: order.append("own") or 1.0,  # type: ignore[func-returns-value]
        lambda: order.append("peer") or 2.0,  # type: ignore[func-returns-value]
        repetitions=2,
    )
    assert order == ["own", "peer"] * 3
    assert pairs.ratios == [2.0, 2.0]


def test_a_clearly_lower_auroc_is_refused_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], 20)
    good = labels + rng.normal(size=40)
    assert auroc_not_shown_to_be_lower(labels, good, good, 0.003, resamples=200)
    assert auroc_not_shown_to_be_lower(labels, good + 0.1 * rng.normal(size=40), good, 0.003, resamples=200)
    assert not auroc_not_shown_to_be_lower(labels, rng.normal(size=40), labels + 0.1 * good, 0.003, resamples=200)
