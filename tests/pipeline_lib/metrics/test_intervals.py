"""Intervals and chances from counts against scipy.stats, which takes half a second to import."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from pipeline_lib.metrics.intervals import share_interval
from pipeline_lib.metrics.thresholds import clopper_pearson_upper, excess_p_value


@pytest.mark.parametrize("n", [1, 2, 12, 31, 200])
def test_a_share_has_wilsons_interval_and_clopper_pearsons_bound(n: int) -> None:
    for count in range(n + 1):
        found = stats.binomtest(count, n).proportion_ci(method="wilson")
        assert share_interval(count / n, n) == pytest.approx((found.low, found.high), rel=1e-12, abs=1e-12)
        upper = stats.binomtest(count, n, alternative="less").proportion_ci(0.95, method="exact").high
        assert clopper_pearson_upper(count, n) == pytest.approx(upper, rel=1e-9)


@pytest.mark.parametrize("above", [0, 1, 2.5])
@pytest.mark.parametrize("n", [1, 9, 60])
def test_the_chance_of_so_many_above_is_beta_binomial(n: int, above: float) -> None:
    threshold: Any = SimpleNamespace(groups_above=above, n_groups=12)
    for count in range(n + 1):
        chance = stats.betabinom.sf(count - 1, n, above + 1, 12 - above)
        assert excess_p_value(threshold, count, n) == pytest.approx(chance, rel=1e-9, abs=1e-12)
