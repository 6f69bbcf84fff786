"""Axes of figures: from values to pixels, ticks, grid lines, and keys of several series."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline_lib.drawing.drawing import SERIES_COLOURS, Box, Line, Mark, Text, text_width

LEFT, RIGHT, TOP, BOTTOM = 66.0, 14.0, 12.0, 42.0
KEY_ROW = 18.0


@dataclass(frozen=True)
class Plane:
    """A plot area: two straight axes, values to pixels."""

    width: float
    height: float  # without the key below it
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        share = (value - self.low_x) / (self.high_x - self.low_x)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low_y) / (self.high_y - self.low_y)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def frame(
        self,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[tuple[float, str]],
        *,
        y_format: Callable[[float], str] = "{:g}".format,
    ) -> list[Mark]:
        """Grid lines with their numbers, and the names of the axes."""
        marks: list[Mark] = []
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        for value in round_ticks(self.low_y, self.high_y):
            y = self.y(value)
            marks.append(Line([(LEFT, y), (right, y)], "grid"))
            marks.append(Text(LEFT - 6, y + 4, y_format(value), "tick", "end"))
        for value, text in x_ticks:
            x = self.x(value)
            marks.append(Line([(x, bottom), (x, bottom + 4)], "zero"))
            half = text_width(text) / 2
            marks.append(Text(min(x, self.width - half), bottom + 17, text, "tick", "middle"))
        marks.append(Text((LEFT + right) / 2, self.height - 6, x_label, "tick", "middle"))
        marks.append(Text(12, (TOP + bottom) / 2, y_label, "tick", "middle", upright=True))
        return marks


def series_key(names: Sequence[str], *, width: float, top: float, first: int = 0) -> tuple[list[Mark], float]:
    """(marks, height) of the names of series with their colours, in rows; `first`: the number of the first colour."""
    marks: list[Mark] = []
    x, y = LEFT, top + 12
    for number, name in enumerate(names, start=first):
        needed = 20 + text_width(name) + 14
        if x > LEFT and x + needed > width:
            x, y = LEFT, y + KEY_ROW
        marks.append(Box(x, y - 9, 12, 9, f"dot-{number % len(SERIES_COLOURS)}"))
        marks.append(Text(x + 17, y, name))
        x += needed
    return marks, y - top + 8


def round_ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers from `low` to `high`; the middle alone where they are equal."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10(high - low))
    for factor in (1.0, 0.5, 0.25, 0.2, 0.1):
        first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
        if last - first >= 3:
            break
    return [round(i * step * factor, 10) + 0.0 for i in range(first, last + 1)]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Lowest and highest value with room around them."""
    low, high = min(values), max(values)
    pad = share * (high - low) or 1.0
    return low - pad, high + pad
