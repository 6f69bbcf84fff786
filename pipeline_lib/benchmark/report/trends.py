"""Figures of a benchmark over a quantity: bytes against quality, the number of clients, sPRO against FPR."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_lib.benchmark.report.figures import Rows
from pipeline_lib.drawing.axes import LEFT, RIGHT, Plane, padded, series_key
from pipeline_lib.drawing.drawing import SERIES_COLOURS, Dot, Drawing, Line, Mark, Text, text_width

WIDTH, HEIGHT = 560.0, 300.0
CURVE_END = 0.3
CURVE_POINTS = 160


@dataclass(frozen=True)
class Series:
    """Points of one line, by x, with intervals where there are some."""

    name: str
    points: Sequence[tuple[float, float, tuple[float, float] | None]]


def bytes_chart(rows: Rows, *, description: str) -> Drawing:
    """Points against the baseline over the share of the image files' bytes that is uploaded, logarithmic.

    Experiments that none other beats in both are named.
    """
    shown = [r for r in rows if r["delta_points"] is not None and r["upload_share_of_image_bytes"]]
    if len(shown) < 2:  # one dot says no more than the table
        return Drawing(0, 0, description)
    shares = [math.log10(row["upload_share_of_image_bytes"]) for row in shown]
    left, right = math.floor(min(shares) * 2) / 2, math.ceil(max(shares) * 2) / 2
    right = right if right > left else left + 0.5
    low, high = padded([0.0, *(r["delta_points"] for r in shown)], 0.12)
    plane = Plane(WIDTH, HEIGHT, left, right, low, high)
    steps = round((right - left) * 2)
    ticks = [left + step / 2 for step in range(0, steps + 1, 1 if steps <= 4 else 2)]
    marks = plane.frame(
        "bytes uploaded, share of the clients' image files (logarithmic)",
        "points against the baseline",
        [(value, f"{float(f'{100 * 10**value:.2g}'):g} %") for value in ticks],
        y_format="{:+g}".format,
    )
    marks.append(Line([(LEFT, plane.y(0)), (WIDTH - RIGHT, plane.y(0))], "zero"))
    taken: list[tuple[float, float, float]] = []
    for row, share in sorted(zip(shown, shares, strict=True), key=lambda pair: -pair[0]["delta_points"]):
        x, y = plane.x(share), plane.y(row["delta_points"])
        marks.append(Dot(x, y, row["verdict"].split()[0], 5, row["experiment"]))
        beaten = any(
            other["delta_points"] > row["delta_points"] and cheaper <= share
            for other, cheaper in zip(shown, shares, strict=True)
        )
        if not beaten:
            above = 8.0 if abs(y - plane.y(0.0)) < 9 else 0.0  # not on the line of the baseline
            marks += _name_beside(row["experiment"], x, y - above, taken)
    return Drawing(WIDTH, HEIGHT, description, marks)


def _name_beside(name: str, x: float, y: float, taken: list[tuple[float, float, float]]) -> list[Mark]:
    """The name right of a dot, or left of it at the edge; none where another name lies already."""
    width = text_width(name)
    start = x + 8 if x + 8 + width < WIDTH else x - 8 - width
    if any(abs(y - other_y) < 13 and start < end and start + width > begin for begin, end, other_y in taken):
        return []
    taken.append((start, start + width, y))
    return [Text(start, y + 4, name)]


def scaling_chart(series: Sequence[Series], *, description: str) -> Drawing:
    """Points against the baseline over a number that grows, a line a series, with 95 % intervals."""
    if not series:
        return Drawing(0, 0, description)
    xs = sorted({x for one in series for x, _, _ in one.points})
    ys = [edge for one in series for _, y, interval in one.points for edge in (y, *(interval or ()))]
    span = xs[-1] - xs[0] or 1.0
    low, high = padded([0.0, *ys])
    plane = Plane(WIDTH, HEIGHT, xs[0] - 0.06 * span, xs[-1] + 0.06 * span, low, high)
    marks = plane.frame("clients", "points against the baseline", [(x, f"{x:g}") for x in xs], y_format="{:+g}".format)
    marks.append(Line([(LEFT, plane.y(0)), (WIDTH - RIGHT, plane.y(0))], "zero"))
    for number, one in enumerate(series, start=1):
        colour = number % len(SERIES_COLOURS)
        aside = 4.0 * (number - (len(series) + 1) / 2)  # intervals of several series side by side
        corners = [(plane.x(x) + aside, plane.y(y)) for x, y, _ in one.points]
        marks.append(Line(corners, f"series-{colour}"))
        for (px, py), (_, _, interval) in zip(corners, one.points, strict=True):
            if interval:
                marks.append(Line([(px, plane.y(edge)) for edge in interval], f"series-{colour}"))
            marks.append(Dot(px, py, f"dot-{colour}", 4, one.name))
    key, tall = series_key([one.name for one in series], width=WIDTH, top=HEIGHT, first=1)
    return Drawing(WIDTH, HEIGHT + tall, description, [*marks, *key])


def runs_chart(series: Sequence[Series], dates: Sequence[str], bad: Sequence[int], *, description: str) -> Drawing:
    """Values over runs, a line a series; x counts runs from 0, `dates` names them, `bad` are marked red."""
    ys = [y for one in series for _, y, _ in one.points]
    if not ys:
        return Drawing(0, 0, description)
    low, high = padded(ys, 0.1)
    plane = Plane(WIDTH, HEIGHT, -0.5, max(1.0, len(dates) - 0.5), low, high)
    step = max(1, math.ceil(len(dates) / 8))
    ticks = [(float(i), dates[i]) for i in range(0, len(dates), step)]
    marks = plane.frame("run", "per cent", ticks)
    for number in bad:
        x = plane.x(number)
        marks.append(Line([(x, plane.y(low)), (x, plane.y(high))], f"series-{len(SERIES_COLOURS) - 1}"))
    for number, one in enumerate(series):
        colour = number % (len(SERIES_COLOURS) - 1)
        corners = [(plane.x(x), plane.y(y)) for x, y, _ in one.points]
        marks.append(Line(corners, f"series-{colour}"))
        marks += [Dot(px, py, f"dot-{colour}", 3, one.name) for px, py in corners]
    key, tall = series_key([one.name for one in series], width=WIDTH, top=HEIGHT)
    return Drawing(WIDTH, HEIGHT + tall, description, [*marks, *key])


def curves_chart(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, description: str) -> Drawing:
    """sPRO against FPR up to CURVE_END, a line an experiment, the headline limit marked.

    curves: experiment -> (x, y), float (point,), x ascending from 0.
    """
    if not curves:
        return Drawing(0, 0, description)
    plane = Plane(WIDTH, HEIGHT, 0.0, CURVE_END, 0.0, 1.0)
    marks = plane.frame(
        "false positive rate of normal pixels, %",
        "sPRO, %",
        [(tick, f"{100 * tick:g}") for tick in (0.0, 0.05, 0.1, 0.2, 0.3)],
        y_format=lambda value: f"{100 * value:g}",
    )
    marks.append(Line([(plane.x(0.05), plane.y(0.0)), (plane.x(0.05), plane.y(1.0))], "zero"))
    for number, (x, y) in enumerate(curves.values()):
        shown = [(plane.x(a), plane.y(b)) for a, b in _thinned(x, y)]
        marks.append(Line(shown, f"series-{number % len(SERIES_COLOURS)}"))
    key, tall = series_key(list(curves), width=WIDTH, top=HEIGHT)
    return Drawing(WIDTH, HEIGHT + tall, description, [*marks, *key])


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """The curve at CURVE_POINTS places, closer together where FPR is low."""
    at = CURVE_END * np.linspace(0.0, 1.0, CURVE_POINTS) ** 2
    return list(zip(at.tolist(), np.interp(at, x, y).tolist(), strict=True))
