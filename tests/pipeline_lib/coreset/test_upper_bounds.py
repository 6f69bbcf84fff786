"""Upper bounds by a guessed center: never below the distance, and mostly the distance."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.coreset.center_distances import CenterDistances
from pipeline_lib.coreset.centered import CenteredFeatures
from pipeline_lib.coreset.upper_bounds import UpperBounds
from pipeline_lib.neighbors.block_threads import block_mapper


def bounds_of(rows: np.ndarray, centers: np.ndarray) -> UpperBounds:
    """Of rows and raw centers, of the first center alone as yet."""
    with block_mapper(2) as map_blocks:
        points = CenteredFeatures(rows, centers[0], map_blocks)
    distances = CenterDistances(points, len(centers), np.result_type(rows, centers))
    distances.add(centers)
    return UpperBounds(distances, points.first_squares)


def exact_squares(upper: UpperBounds, rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """To the nearest center, in the scaled coordinates."""
    others = centers.astype(np.float64)
    return np.array([((row - others) ** 2).sum(axis=1).min() for row in rows.astype(np.float64)]) * (
        upper.points.scale**2
    )


def flat(rows: int, dim: int, *, rank: int, scale: float = 1.0, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    """float32 (rows, dim), most of whose variance `rank` directions hold."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(rank, dim))
    values = rng.normal(size=(rows, rank)) @ mixing + 0.1 * rng.normal(size=(rows, dim))
    return (values * scale + offset).astype(np.float32)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 0.0), (1e-3, 1e4), (1e-18, 0.0), (1e17, -1e18)])
@pytest.mark.parametrize(("rows", "centers", "dim"), [(2, 1, 1), (300, 17, 5), (600, 600, 152)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_never_below_the_distance_and_mostly_it(
    rows: int, centers: int, dim: int, scale: float, offset: float, dtype: type
) -> None:
    points = flat(rows, dim, rank=8, scale=scale, offset=offset).astype(dtype)
    chosen = flat(centers, dim, rank=8, scale=scale, offset=offset, seed=1).astype(dtype)
    chosen[-1] = points[-1] if centers > 1 else chosen[-1]
    upper = bounds_of(points, chosen)
    exact = exact_squares(upper, points, chosen)
    assert (upper.values >= exact_squares(upper, points, chosen[:1])).all()
    with block_mapper(2) as map_blocks:
        upper.above(-1.0, map_blocks)
    assert (upper.values >= exact).all()
    near = upper.values <= exact * 1.001 + 1e-9 * upper.points.scale**2 * (offset**2 + scale**2)
    assert near.mean() > 0.8
    assert (upper.stamps == centers).all()


def test_short_forms_are_used_where_few_directions_hold_most() -> None:
    assert bounds_of(flat(2000, 152, rank=8), flat(5, 152, rank=8)).centers.forms.shape == (5, 17)
    isotropic = np.random.default_rng(0).normal(size=(2000, 152)).astype(np.float32)
    assert bounds_of(isotropic, isotropic[:5]).centers.forms.shape == (5, 153)


def test_a_row_that_falls_to_the_threshold_is_left_there() -> None:
    rng = np.random.default_rng(1)
    points = (rng.normal(size=(2000, 20)) * 0.1).astype(np.float32)
    chosen = np.concatenate([rng.normal(size=(900, 20)).astype(np.float32) + 5, points[::2]])  # near ones last
    upper = bounds_of(points, chosen)
    exact = exact_squares(upper, points, chosen)
    threshold = float(np.quantile(exact, 0.9))
    with block_mapper(1) as map_blocks:
        above = upper.above(threshold, map_blocks)
    assert set(np.flatnonzero(exact > threshold)) <= set(above)
    assert (upper.values >= exact).all()
    left = np.setdiff1d(np.arange(2000), above)
    assert (upper.values[left] <= threshold).all()
    assert len(left) > 900
