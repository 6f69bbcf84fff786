"""Figures as inline SVG. Colours come from the page's style sheet, so that they follow dark mode and print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from pipeline_lib.drawing.axes import BOTTOM, TOP, Plane, round_ticks
from pipeline_lib.drawing.drawing import Anchor, Dot, Drawing, Line, Mark, Text, inline_svg

WIDTH, HEIGHT = 340.0, 250.0
MARGIN = 10.0
BINS = 36
ROW_HEIGHT = 46.0
LABEL_CHARACTERS = 30


@dataclass(frozen=True)
class IntervalRow:
    """One line of an interval chart; values in [0, 1], None where undefined."""

    label: str
    value: float | None
    interval: tuple[float, float] | None = None
    others: tuple[tuple[str, float | None], ...] = ()  # (name, value) of further points, drawn small


def curve_chart(
    x: np.ndarray,
    y: np.ndarray,
    *,
    x_label: str,
    y_label: str,
    description: str,
    x_end: float = 1.0,
    shaded_to: float | None = None,
    chance: bool = False,
) -> Markup:
    """A curve in the unit square, or up to `x_end`; the area up to `shaded_to` filled; the diagonal where `chance`.

    x, y: float (point,), x ascending.
    """
    plane = Plane(WIDTH, HEIGHT, 0.0, x_end, 0.0, 1.0)
    ticks = [(float(tick), _per_cent(tick)) for tick in np.linspace(0, x_end, 5 if x_end == 1 else 4)]
    marks = plane.frame(f"{x_label}, %", f"{y_label}, %", ticks, y_format=_per_cent)
    if shaded_to is not None:
        end = min(shaded_to, x_end)
        inside = _points(plane, *_cut(x, y, end))
        marks.append(Line([*inside, (inside[-1][0], plane.y(0.0)), (plane.x(0.0), plane.y(0.0))], "area"))
        marks.append(_upright(plane, end))
    if chance:
        marks.append(Line([(plane.x(end), plane.y(end)) for end in (0.0, x_end)], "chance"))
    marks.append(Line(_points(plane, *_cut(x, y, x_end)), "curve"))
    return inline_svg(Drawing(WIDTH, HEIGHT, description, marks))


def score_histogram(good: np.ndarray, defective: np.ndarray, *, threshold: float | None, description: str) -> Markup:
    """The scores of good and of defective images, each as shares of its own class, with the threshold."""
    scores = np.concatenate([good, defective])
    if not len(scores):
        return inline_svg(Drawing(WIDTH, HEIGHT, description))
    shown = scores if threshold is None else np.append(scores, threshold)
    low, high = float(shown.min()), float(shown.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = {
        name: np.histogram(values, edges)[0] / len(values)
        for name, values in (("good", good), ("defective", defective))
        if len(values)
    }
    plane = Plane(WIDTH, HEIGHT, low, high, 0.0, max(float(share.max()) for share in shares.values()) * 1.08)
    ticks = round_ticks(low, high)
    labels = [(tick, f"{tick:g}") for tick in ticks[:: 1 if len(ticks) <= 6 else 2]]
    marks = plane.frame("image score", "share of the class, %", labels, y_format=_per_cent)
    for name, share in shares.items():
        steps = [(edge, share[i]) for i in range(BINS) for edge in (edges[i], edges[i + 1])]
        closed = [(low, 0.0), *steps, (high, 0.0), (low, 0.0)]
        marks.append(Line([(plane.x(x), plane.y(y)) for x, y in closed], f"bars {name}"))
    if threshold is not None:
        marks.append(_upright(plane, threshold))
    return inline_svg(Drawing(WIDTH, HEIGHT, description, marks))


def interval_chart(rows: Sequence[IntervalRow], *, description: str) -> Markup:
    """A line a row: the value with its interval, in per cent, from the values' own lowest ten to 100."""
    found = [
        value
        for row in rows
        for value in (row.value, *(row.interval or ()), *(other for _, other in row.others))
        if value is not None
    ]
    start = max(0.0, float(np.floor((min(found, default=0.0) - 0.02) * 10) / 10))
    bottom = TOP + ROW_HEIGHT * len(rows)

    def across(value: float) -> float:
        return MARGIN + (value - start) / (1.0 - start) * (WIDTH - 2 * MARGIN)

    marks: list[Mark] = []
    for i, tick in enumerate(round_ticks(start, 1.0)):
        marks.append(Line([(across(tick), TOP), (across(tick), bottom)], "grid"))
        anchor: Anchor = "end" if tick == 1.0 else "middle" if i else "start"
        marks.append(Text(across(tick), bottom + 16, _per_cent(tick), "tick", anchor))
    for i, row in enumerate(rows):
        marks += _interval_row(row, TOP + ROW_HEIGHT * i, across)
    return inline_svg(Drawing(WIDTH, bottom + BOTTOM - 16, description, marks))


def _interval_row(row: IntervalRow, top: float, across: Callable[[float], float]) -> list[Mark]:
    middle = top + 30
    label = row.label if len(row.label) <= LABEL_CHARACTERS else row.label[: LABEL_CHARACTERS - 1] + "…"
    value = "undefined" if row.value is None else f"{100 * row.value:.1f}"
    marks: list[Mark] = [Text(MARGIN, top + 15, label), Text(WIDTH - MARGIN, top + 15, value, "label", "end")]
    if row.interval:
        marks.append(Line([(across(edge), middle) for edge in row.interval], "interval"))
    for position, (name, other) in enumerate(row.others):
        if other is not None:
            marks.append(Dot(across(other), middle, f"other o{position}", 3.5, f"{name}: {100 * other:.1f}"))
    if row.value is not None:
        marks.append(Dot(across(row.value), middle, "point", 5.0))
    return marks


def _upright(plane: Plane, value: float) -> Line:
    """A line over the whole height of the plot."""
    return Line([(plane.x(value), TOP), (plane.x(value), plane.y(plane.low_y))], "mark")


def _points(plane: Plane, x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    return [(plane.x(float(a)), plane.y(float(b))) for a, b in zip(x, y, strict=True)]


def _cut(x: np.ndarray, y: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """The curve up to `end`, with the point at `end` itself."""
    if not len(x) or x[-1] <= end:
        return x, y
    keep = x <= end
    return np.append(x[keep], end), np.append(y[keep], np.interp(end, x, y))


def _per_cent(share: float) -> str:
    return f"{100 * share:.3g}"
