"""Rows by coverage: the cut at one radius is the exact greedy choice, and does not depend on who comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import FedpatchError
from data_contracts.stages import CoresetSettings
from pipeline_lib.client_coreset import coreset_of_patches
from pipeline_lib.coreset import greedy_coreset_selection
from pipeline_lib.row_budget import curve_length, cut_at_common_radius, rows_of_round

SETTINGS = CoresetSettings(
    seed=1,
    subsampling="kcenter",
    ratio=0.1,
    bank_scope="per_category",
    codec="float32",
    clip_norm=None,
    noise_sigma=0.0,
)
Curves = list[list[float]]
curves_of_clients = st.lists(
    st.lists(st.floats(0.001, 100), max_size=12).map(lambda found: sorted(found, reverse=True)), min_size=1, max_size=5
)


def slow_greedy(curves: Curves, n_rows: int) -> list[int]:
    """One row after the other to the client whose next pick is the farthest."""
    rows = [0] * len(curves)
    for _ in range(min(n_rows, sum(map(len, curves)))):
        gains = [curve[n] if n < len(curve) else -1.0 for curve, n in zip(curves, rows, strict=True)]
        rows[gains.index(max(gains))] += 1
    return rows


@given(curves_of_clients, st.integers(0, 60))
def test_the_cut_is_the_greedy_choice_row_by_row(curves: Curves, n_rows: int) -> None:
    budget = cut_at_common_radius([np.array(curve) for curve in curves], n_rows)
    assert budget.rows.tolist() == slow_greedy(curves, n_rows)
    assert budget.rows.sum() == min(n_rows, sum(map(len, curves)))
    for curve, n in zip(curves, budget.rows.tolist(), strict=True):
        assert all(distance >= budget.radius for distance in curve[:n])
        assert all(distance <= budget.radius for distance in curve[n:])


@given(st.permutations(range(4)), st.integers(0, 40))
def test_who_comes_first_does_not_matter(order: list[int], n_rows: int) -> None:
    rng = np.random.default_rng(5)
    curves = [np.sort(rng.random(10))[::-1] for _ in range(4)]
    plain = cut_at_common_radius(curves, n_rows).rows
    assert np.array_equal(cut_at_common_radius([curves[i] for i in order], n_rows).rows, plain[order])


def test_a_client_whose_patches_spread_wider_gets_more_rows_than_its_count_would_give() -> None:
    rng = np.random.default_rng(2)
    patches = [rng.normal(size=(300, 6)), 4 * rng.normal(size=(300, 6))]
    curves = [greedy_coreset_selection(p, 100, rng=np.random.default_rng(0)).pick_distances for p in patches]
    rows = cut_at_common_radius(curves, 100).rows
    assert rows.sum() == 100
    assert rows[1] > 80 > 20 > rows[0] > 0


def test_what_is_not_a_farthest_first_curve_is_refused() -> None:
    with pytest.raises(FedpatchError, match="curve 1 rises"):
        cut_at_common_radius([np.array([2.0, 1.0]), np.array([1.0, 2.0])], 2)
    with pytest.raises(FedpatchError, match="curve 0 rises or is not a number"):
        cut_at_common_radius([np.array([np.nan])], 2)
    assert cut_at_common_radius([], 3).rows.tolist() == []


def test_rounds_use_up_the_total_whatever_was_sent_before() -> None:
    held = 0
    for number in (1, 2, 3):
        held += rows_of_round(100, held, number, 3, is_relay=False)
    assert held == 100
    assert rows_of_round(100, 10, 2, 3, is_relay=True) == 90
    assert rows_of_round(100, 120, 2, 3, is_relay=True) == 0
    assert (curve_length(10.2, 1000), curve_length(0.1, 1000), curve_length(300, 1000)) == (41, 1, 1000)


def test_a_relay_spaces_the_rows_of_all_clients_as_one_selection_would() -> None:
    """In turns, each down to the radius: no row nearer than it to another's, and every patch covered within it."""
    rng = np.random.default_rng(4)
    clients = [rng.normal(size=(120, 5)).astype(np.float16) for _ in range(3)]
    radius, passed = 1.6, np.empty((0, 5), np.float32)
    for number, patches in enumerate(clients):
        coreset = coreset_of_patches(
            patches, ["image"], [120], SETTINGS, bank="tile", client_id=f"client_{number}", raw_image_bytes=0,
            size=120, down_to=radius, covered=passed if len(passed) else None,
        )  # fmt: skip
        assert coreset is not None
        assert coreset.covering_radius <= radius
        passed = np.concatenate([passed, coreset.arrays["rows"]])
    between = np.linalg.norm(passed[:, None].astype(np.float64) - passed[None], axis=2)
    assert between[~np.eye(len(passed), dtype=bool)].min() >= radius
    to_bank = np.linalg.norm(np.concatenate(clients)[:, None].astype(np.float64) - passed[None], axis=2).min(axis=1)
    assert to_bank.max() <= radius
    capped = coreset_of_patches(
        clients[0], ["image"], [120], SETTINGS, bank="tile", client_id="a", raw_image_bytes=0, size=7, down_to=0.1
    )
    assert capped is not None
    assert capped.n_rows == 7
