"""Counts of each image on a grid of scores: AUC-sPRO of any resample is a matrix product away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CURVES = 16  # worked on at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class ImageCounts:
    """For each image, what the sPRO curve is made of, on a grid of thresholds from high to low.

    The grid has two thresholds for each of its scores v, "> v" and ">= v". All defect scores between two neighbours
    together lift the curve of the whole set by less than 1 / (number of grid scores); the straight line between two
    points of a rising curve is off by at most half of the rise, so the area divided by the limit is within half of
    1 / (number of grid scores) of the exact one: 0.0005 for 1,000. Ties at a grid score are exact. In a resample the
    rise between neighbours is larger by as much as their images were drawn more often.
    """

    normal_above: np.ndarray  # int32 (image, threshold): normal pixels over the threshold
    spro_sum: np.ndarray  # float64 (image, threshold): sum of sPRO over the image's channels
    n_normal_px: np.ndarray  # int64 (image,)
    n_channels: np.ndarray  # int64 (image,)

    def of_images(self, positions: np.ndarray) -> ImageCounts:
        """The counts of some of the images."""
        return ImageCounts(
            self.normal_above[positions],
            self.spro_sum[positions],
            self.n_normal_px[positions],
            self.n_channels[positions],
        )


def score_grid(steps: np.ndarray, grid_scores: int) -> np.ndarray:
    """Indices of at most about `grid_scores` defect scores, descending, between which the curve rises by less than
    1 / grid_scores.

    `steps` (float64, one for each distinct defect score, scores ascending) is how much each lifts the mean sPRO.
    """
    lifting = np.flatnonzero(steps)[::-1]
    total = np.cumsum(steps[lifting])
    cell = np.floor(total / total[-1] * grid_scores)
    chosen = np.diff(cell, prepend=0) > 0
    chosen[0] = chosen[-1] = True
    picked: np.ndarray = lifting[chosen]
    return picked


def curve_area(x: np.ndarray, y: np.ndarray, *, limit: float) -> np.ndarray:
    """Area below piecewise linear curves from 0 to `limit`, divided by `limit`.

    x, y: float64 (curve, point), x ascending from 0 and reaching at least `limit`; returns float64 (curve,).
    """
    reached = np.flatnonzero((x >= limit).all(axis=0))
    last = int(reached[0]) if len(reached) else x.shape[1] - 1  # no curve has any area beyond this point
    pieces = np.zeros((len(x), x.shape[1] - 1))
    for start in range(0, len(x), _CURVES):
        of, before = x[start : start + _CURVES, : last + 1], y[start : start + _CURVES, :last]
        run, width = np.diff(of, axis=1), np.diff(np.minimum(of, limit), axis=1)
        height = np.divide(width, run, out=np.zeros_like(run), where=run > 0)
        height *= np.diff(y[start : start + _CURVES, : last + 1], axis=1)
        height += before  # y where the piece ends
        height += before
        height /= 2
        np.multiply(height, width, out=pieces[start : start + _CURVES, :last])
    area: np.ndarray = pieces.sum(axis=1) / limit  # over all points, so that the sums round as they always did
    return area
