"""Figures of a benchmark that have a line an experiment: differences with intervals, and values as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline_lib.drawing.axes import round_ticks
from pipeline_lib.drawing.drawing import Box, Dot, Drawing, Line, Mark, Text, text_width

WIDTH = 420.0
ROW_HEIGHT = 22.0
PAIR_HEIGHT = 36.0
LABEL_WIDTH = 178.0
VALUE_WIDTH = 48.0
TICK_WIDTH = 36.0  # a number below an axis, with air
Rows = Sequence[Mapping[str, Any]]


def delta_chart(rows: Rows, *, description: str, name_baseline: bool = False) -> Drawing:
    """A line a row of `comparison.json`: points against the baseline with the 95 % interval, 0 marked.

    name_baseline: say below each name what it is compared with.
    """
    shown = [row for row in rows if row["delta_points"] is not None and row["verdict"] != "baseline"]
    if not shown:
        return Drawing(0, 0, description)
    edges: list[float] = [edge for row in shown for edge in (row["delta_points"], *(row["ci95"] or ()), 0.0)]
    low, high = min(edges), max(edges)
    pad = 0.05 * (high - low) or 1.0
    low, high = low - pad, high + pad
    row_height = PAIR_HEIGHT if name_baseline else ROW_HEIGHT
    height = row_height * len(shown) + 34

    def across(value: float) -> float:
        return LABEL_WIDTH + (value - low) / (high - low) * (WIDTH - LABEL_WIDTH - VALUE_WIDTH)

    marks: list[Mark] = [Line([(across(0.0), 4), (across(0.0), height - 24)], "zero")]
    ends = {edge for edge in (low + pad, high - pad) if abs(across(edge) - across(0.0)) > TICK_WIDTH}
    for value in sorted({0.0, *ends}):
        marks.append(Text(across(value), height - 8, f"{value:+.1f}", "tick", "middle"))
    for i, row in enumerate(shown):
        y = 14 + row_height * i
        marks.append(Text(0, y + 4, shortened(row["experiment"])))
        if name_baseline:
            marks.append(Text(0, y + 18, shortened(f"against {row['baseline']}"), "tick"))
        if row["ci95"]:
            marks.append(Line([(across(edge), y) for edge in row["ci95"]], "interval"))
        marks.append(Dot(across(row["delta_points"]), y, row["verdict"].split()[0]))
        marks.append(Text(WIDTH, y + 4, f"{row['delta_points']:+.1f}", "label", "end"))
    return Drawing(WIDTH, height, description, marks)


def value_bars(rows: Rows, *, description: str) -> Drawing:
    """A bar a row of `comparison.json`: the value in per cent from 0, with its 95 % interval."""
    shown = [row for row in rows if row["value"] is not None]
    if not shown:
        return Drawing(0, 0, description)
    height = ROW_HEIGHT * len(shown) + 30

    def across(value: float) -> float:
        return LABEL_WIDTH + value * (WIDTH - LABEL_WIDTH - VALUE_WIDTH)

    marks: list[Mark] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        marks.append(Line([(across(tick), 4), (across(tick), height - 24)], "grid"))
        marks.append(Text(across(tick), height - 8, f"{100 * tick:.0f}", "tick", "middle"))
    for i, row in enumerate(shown):
        y = 14 + ROW_HEIGHT * i
        style = "bar-baseline" if row["verdict"] == "baseline" else "bar"
        marks.append(Text(0, y + 4, shortened(row["experiment"])))
        marks.append(Box(across(0.0), y - 7, across(row["value"]) - across(0.0), 14, style))
        if row.get("value_ci95"):
            marks.append(Line([(across(edge), y) for edge in row["value_ci95"]], "interval"))
        marks.append(Text(WIDTH, y + 4, f"{100 * row['value']:.1f}", "label", "end"))
    return Drawing(WIDTH, height, description, marks)


def coverage_chart(rows: Rows, *, description: str) -> Drawing:
    """A line a row of `coverage.json` from 0 on: from the median to the largest distance, with 90 and 99 % as dots."""
    if not rows:
        return Drawing(0, 0, description)
    high = 1.05 * max(row["covering_radius"] for row in rows) or 1.0
    height = ROW_HEIGHT * len(rows) + 30

    def across(value: float) -> float:
        return LABEL_WIDTH + value / high * (WIDTH - LABEL_WIDTH - VALUE_WIDTH)

    marks: list[Mark] = []
    ticks = round_ticks(0.0, high)
    for tick in ticks[:: 1 if len(ticks) <= 5 else 2]:
        marks.append(Line([(across(tick), 4), (across(tick), height - 24)], "grid"))
        marks.append(Text(across(tick), height - 8, f"{tick:g}", "tick", "middle"))
    for i, row in enumerate(rows):
        y = 14 + ROW_HEIGHT * i
        start, end = across(row["q50"]), across(row["covering_radius"])
        marks.append(Text(0, y + 4, shortened(row["experiment"])))
        marks.append(Line([(start, y), (end, y)], "interval"))
        marks += [Line([(x, y - 5), (x, y + 5)], "interval") for x in (start, end)]
        marks += [Dot(across(row["q90"]), y, "baseline", 3.0, "90 %"), Dot(across(row["q99"]), y, "no", title="99 %")]
        marks.append(Text(WIDTH, y + 4, f"{row['covering_radius']:.3g}", "label", "end"))
    return Drawing(WIDTH, height, description, marks)


def shortened(name: str) -> str:
    """The name, cut with three dots where it is wider than its column."""
    width = LABEL_WIDTH - 10
    if text_width(name) <= width:
        return name
    while name and text_width(name + "...") > width:
        name = name[:-1]
    return name + "..."
