"""Slow obvious k-center selection in float64, and the replay that judges anyone's."""

from __future__ import annotations

import numpy as np


def slow_k_center(features: np.ndarray, target_size: int, *, start: int) -> list[int]:
    """Farthest first by direct differences, one center after the other."""
    points = features.astype(np.float64)
    distances = np.full(len(points), np.inf)
    picks = [start]
    while True:
        distances = np.minimum(distances, np.sqrt(((points - points[picks[-1]]) ** 2).sum(axis=1)))
        distances[picks] = -1.0
        if len(picks) == target_size:
            return picks
        picks.append(int(distances.argmax()))


def replay(
    features: np.ndarray,
    indices: np.ndarray,
    *,
    initial_centers: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    quotas: dict[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Distance of each pick to the centers before it, the largest distance then, and the final covering radius.

    With quotas, the largest distance is taken over rows whose group has quota left.
    """
    points = features.astype(np.float64)
    distances = np.full(len(points), np.inf)
    for center in [] if initial_centers is None else initial_centers.astype(np.float64):
        distances = np.minimum(distances, np.sqrt(((points - center) ** 2).sum(axis=1)))
    left = dict(quotas or {})
    own, largest = [], []
    for index in indices:
        open_rows = (
            np.ones(len(points), bool) if groups is None else np.array([left.get(int(g), 0) > 0 for g in groups])
        )
        own.append(distances[index])
        largest.append(distances[open_rows].max())
        if groups is not None:
            left[int(groups[index])] -= 1
        distances = np.minimum(distances, np.sqrt(((points - points[index]) ** 2).sum(axis=1)))
    return np.array(own), np.array(largest), float(distances.max())


def slow_cell_means(
    patches: np.ndarray, rows: np.ndarray, *, fixed: np.ndarray, steps: int
) -> tuple[list[list[float]], list[int], list[int]]:
    """Means, counts and the cell of each patch by loops over patches, centers and dimensions."""
    points = [[float(value) for value in patch] for patch in patches]
    means = [[float(value) for value in row] for row in rows]
    places = [[float(value) for value in center] for center in fixed]
    counts: list[int] = []
    cell: list[int] = []
    for _ in range(steps):
        cell = []
        for point in points:
            best, nearest = float("inf"), -1
            for number, center in enumerate([*places, *means]):
                square = 0.0
                for a, b in zip(point, center, strict=True):
                    square += (a - b) ** 2
                if square < best:
                    best, nearest = square, number
            cell.append(max(-1, nearest - len(places)))
        sums = [[0.0] * patches.shape[1] for _ in means]
        counts = [0] * len(means)
        for point, row in zip(points, cell, strict=True):
            if row >= 0:
                counts[row] += 1
                for d, value in enumerate(point):
                    sums[row][d] += value
        means = [
            [float(np.float32(value / count)) for value in own] if count else mean
            for own, count, mean in zip(sums, counts, means, strict=True)
        ]
    return means, counts, cell
