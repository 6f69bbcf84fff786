"""Upper bounds by products of bfloat16: never below the distance, and near it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.coreset.upper_bounds import UpperBounds
from pipeline_lib.neighbors.bfloat16_products import BFloat16Factors
from pipeline_lib.neighbors.block_threads import block_mapper


def bounds_of(rows: np.ndarray, centers: np.ndarray) -> UpperBounds:
    """Of rows and centers that are centered and scaled already; of the first center alone as yet."""
    forms = BFloat16Factors(len(rows), rows.shape[1], side=1)
    forms.put(slice(0, len(rows)), rows, (rows**2).sum(axis=1))
    result = UpperBounds(forms, ((rows - centers[0]) ** 2).sum(axis=1), len(centers))
    result.add(centers, (centers**2).sum(axis=1))
    return result


def nearest_squares(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return np.array([((row - centers) ** 2).sum(axis=1).min() for row in rows])


@pytest.mark.parametrize("nine_bits", [False, True])
@pytest.mark.parametrize("scale", [2.0**-3, 2.0**-10, 2.0**-63])
@pytest.mark.parametrize(("rows", "centers", "dim"), [(1, 1, 1), (300, 17, 5), (600, 600, 152)])
def test_is_never_below_the_distance_and_near_it(
    rows: int, centers: int, dim: int, scale: float, nine_bits: bool
) -> None:
    rng = np.random.default_rng(dim)
    points = rng.normal(size=(rows, dim)) * scale
    chosen = np.concatenate([points[:1] * (1 + 1e-9), rng.normal(size=(centers - 1, dim)) * scale])
    if nine_bits:  # which bfloat16 rounds by half a last place, all of them away from 0
        points, chosen = (
            np.copysign((256 + 4 * np.round(np.abs(v) / scale) + 3) / 256, v) * scale for v in (points, chosen)
        )
    upper = bounds_of(points, chosen)
    with block_mapper(2) as map_blocks:
        upper.above(-1.0, map_blocks)
    exact = nearest_squares(points, chosen)
    largest = (points**2).sum(axis=1) + (chosen**2).sum(axis=1).max()
    assert (upper.values >= exact).all()
    assert (upper.values <= exact * 1.01 + 0.012 * largest + 1e-33).all()
    assert (upper.stamps == centers).all()


def test_a_row_that_falls_to_the_threshold_is_left_there() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(2000, 20)) * 0.1
    chosen = np.concatenate([rng.normal(size=(900, 20)) + 5, points[::2]])  # near ones last
    upper = bounds_of(points, chosen)
    exact = nearest_squares(points, chosen)
    threshold = float(np.quantile(exact, 0.9))
    with block_mapper(1) as map_blocks:
        above = upper.above(threshold, map_blocks)
    assert set(np.flatnonzero(exact > threshold)) <= set(above)
    assert (upper.values >= exact).all()
    left = np.setdiff1d(np.arange(2000), above)
    assert (upper.values[left] <= threshold).all()
    assert len(left) > 900
