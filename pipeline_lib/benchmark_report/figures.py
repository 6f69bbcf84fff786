"""Figures of a benchmark as SVG: differences with intervals, and bytes against quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH = 420.0
ROW_HEIGHT = 22.0
LABEL_WIDTH = 170.0
PLOT_HEIGHT = 240.0
TICK_WIDTH = 36.0  # a number below an axis, with air


def delta_chart(rows: Sequence[Mapping[str, Any]], *, description: str) -> Markup:
    """A line a row of `comparison.json`: points against the baseline with the 95 % interval, 0 marked."""
    shown = [row for row in rows if row["delta_points"] is not None and row["verdict"] != "baseline"]
    if not shown:
        return Markup("")
    edges: list[float] = [edge for row in shown for edge in (row["delta_points"], *(row["ci95"] or ()), 0.0)]
    low, high = min(edges), max(edges)
    pad = 0.05 * (high - low) or 1.0
    low, high = low - pad, high + pad
    height = ROW_HEIGHT * len(shown) + 34

    def across(value: float) -> float:
        return LABEL_WIDTH + (value - low) / (high - low) * (WIDTH - LABEL_WIDTH - 56)

    bottom = height - 24
    parts = [Markup('<line class="zero" x1="{0:.1f}" x2="{0:.1f}" y1="4" y2="{1:.1f}"/>').format(across(0.0), bottom)]
    ends = {edge for edge in (low + pad, high - pad) if abs(across(edge) - across(0.0)) > TICK_WIDTH}
    for value in sorted({0.0, *ends}):
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{:+.1f}</text>').format(
                across(value), height - 8, value
            )
        )
    for i, row in enumerate(shown):
        y = 14 + ROW_HEIGHT * i
        parts.append(Markup('<text class="label" x="0" y="{:.1f}">{}</text>').format(y + 4, row["experiment"][:28]))
        if row["ci95"]:
            start, end = (across(edge) for edge in row["ci95"])
            parts.append(
                Markup('<line class="interval" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                    start, end, y, y
                )
            )
        parts.append(
            Markup('<circle class="point {}" cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(
                row["verdict"].split()[0], across(row["delta_points"]), y
            )
        )
        parts.append(
            Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="end">{:+.1f}</text>').format(
                WIDTH, y + 4, row["delta_points"]
            )
        )
    return _svg(height, description, parts)


def bytes_chart(rows: Sequence[Mapping[str, Any]], *, description: str) -> Markup:
    """Points against the baseline over the share of the image files' bytes that is uploaded, logarithmic."""
    shown = [r for r in rows if r["delta_points"] is not None and r["upload_share_of_image_bytes"]]
    if not shown:
        return Markup("")
    shares: list[float] = [math.log10(row["upload_share_of_image_bytes"]) for row in shown]
    left, right = math.floor(min(shares) * 2) / 2, math.ceil(max(shares) * 2) / 2
    right = right if right > left else left + 0.5
    deltas: list[float] = [0.0, *(r["delta_points"] for r in shown)]
    low, high = min(deltas), max(deltas)
    pad = 0.1 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def across(value: float) -> float:
        return 46 + (value - left) / (right - left) * (WIDTH - 60)

    def up(value: float) -> float:
        return 10 + (high - value) / (high - low) * (PLOT_HEIGHT - 56)

    parts = [
        Markup('<line class="zero" x1="46" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(WIDTH, up(0.0), up(0.0)),
        Markup('<text class="tick" x="40" y="{:.1f}" text-anchor="end">0</text>').format(up(0.0) + 4),
    ]
    steps = round((right - left) * 2)
    for step in range(0, steps + 1, 1 if steps <= 4 else 2):
        value = left + step / 2
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{:g} %</text>').format(
                across(value), PLOT_HEIGHT - 26, "middle" if value < right else "end", _rounded(100 * 10**value)
            )
        )
    for value in (low + pad, high - pad):
        if abs(value) > 1e-9:
            parts.append(
                Markup('<text class="tick" x="40" y="{:.1f}" text-anchor="end">{:+.1f}</text>').format(
                    up(value) + 4, value
                )
            )
    for row, share in zip(shown, shares, strict=True):
        parts.append(
            Markup('<circle class="point {}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>').format(
                row["verdict"].split()[0], across(share), up(row["delta_points"]), row["experiment"]
            )
        )
    parts.append(
        Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
            WIDTH / 2, PLOT_HEIGHT - 6, "bytes uploaded, share of the clients' image files (logarithmic)"
        )
    )
    return _svg(PLOT_HEIGHT, description, parts)


def _rounded(value: float) -> float:
    """To two significant digits."""
    return float(f"{value:.2g}")


def _svg(height: float, description: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, description, Markup("").join(parts)
    )
