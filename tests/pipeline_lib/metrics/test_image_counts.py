"""The area below many curves at once, against one that is summed piece by piece."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.metrics.spro.image_counts import curve_area


def area_of_one(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoids up to `limit`, the piece that it cuts interpolated."""
    area = 0.0
    for left, right, low, high in zip(x, x[1:], y, y[1:], strict=False):
        if left >= limit or right == left:
            continue
        end = min(right, limit)
        area += (end - left) * (low + (low + (high - low) * (end - left) / (right - left))) / 2
    return area / limit


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("reach", [0.01, 0.3, 1.0], ids=lambda reach: f"up to {reach}")
def test_the_area_is_that_of_the_trapezoids(limit: float, reach: float) -> None:
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.random((2, 37, 90)), axis=2)  # more curves than are worked on at a time
    x *= reach
    x[:, 20:25] = x[:, 20:21]  # a jump, as at a score that many pixels share
    x[:, 0], x[:, -1] = 0.0, 1.0
    found = curve_area(x, y, limit=limit)
    assert found == pytest.approx([area_of_one(*curve, limit) for curve in zip(x, y, strict=True)], rel=1e-12)


def test_curves_that_are_computed_together_are_those_that_are_computed_alone() -> None:
    rng = np.random.default_rng(1)
    x, y = np.sort(rng.random((2, 40, 90)), axis=2)
    x[:, 0], x[:, -1] = 0.0, 1.0
    alone = [curve_area(x[i : i + 1], y[i : i + 1], limit=0.2)[0] for i in range(len(x))]
    assert curve_area(x, y, limit=0.2).tolist() == alone
