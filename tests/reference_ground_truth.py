"""Slow, obvious references for masks."""

from __future__ import annotations

import numpy as np


def flood_fill_components(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """The 8-connected components of a boolean mask as sets of (row, column)."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    components = []
    while left:
        front, component = [left.pop()], set()
        while front:
            row, column = front.pop()
            component.add((row, column))
            for neighbour in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if neighbour in left:
                    left.remove(neighbour)
                    front.append(neighbour)
        components.append(component)
    return components
