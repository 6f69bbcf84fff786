"""Figures as inline SVG. Colours come from the page's style sheet, so that they follow dark mode and print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 340, 250
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 12, 40
BINS = 36
ROW_HEIGHT = 46
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
    across, up = _axis(0.0, x_end, LEFT, WIDTH - RIGHT), _axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    parts = [_frame(across, up, _ticks(x_end), (0.0, 0.25, 0.5, 0.75, 1.0), x_label, y_label, percent=True)]
    if shaded_to is not None:
        inside_x, inside_y = _cut(x, y, min(shaded_to, x_end))
        corners = [(inside_x[-1], 0.0), (0.0, 0.0)] if len(inside_x) else []
        outline = [*zip(inside_x, inside_y, strict=True), *corners]
        parts.append(Markup('<path class="area" d="{}Z"/>').format(_path(outline, across, up)))
        parts.append(
            Markup('<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                _number(across(min(shaded_to, x_end))), TOP, HEIGHT - BOTTOM
            )
        )
    if chance:
        parts.append(Markup('<path class="chance" d="{}"/>').format(_path([(0, 0), (x_end, x_end)], across, up)))
    shown_x, shown_y = _cut(x, y, x_end)
    parts.append(Markup('<path class="curve" d="{}"/>').format(_path(zip(shown_x, shown_y, strict=True), across, up)))
    return _svg(WIDTH, HEIGHT, description, parts)


def score_histogram(good: np.ndarray, defective: np.ndarray, *, threshold: float | None, description: str) -> Markup:
    """The scores of good and of defective images, each as shares of its own class, with the threshold."""
    scores = np.concatenate([good, defective])
    if not len(scores):
        return _svg(WIDTH, HEIGHT, description, [])
    low, high = float(scores.min()), float(scores.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = {
        name: np.histogram(values, edges)[0] / max(1, len(values))
        for name, values in (("good", good), ("defective", defective))
    }
    top = max(float(share.max()) for share in shares.values()) * 1.08
    across, up = _axis(low, high, LEFT, WIDTH - RIGHT), _axis(0.0, top, HEIGHT - BOTTOM, TOP)
    parts = [
        _frame(across, up, _round_ticks(low, high), _round_ticks(0.0, top)[:5], "image score", "share of the class")
    ]
    for name, share in shares.items():
        steps = [(edge, share[i]) for i in range(BINS) for edge in (edges[i], edges[i + 1])]
        closed = [(low, 0.0), *steps, (high, 0.0)]
        parts.append(Markup('<path class="{}" d="{}Z"/>').format(f"bars {name}", _path(closed, across, up)))
    if threshold is not None and low <= threshold <= high:
        at = _number(across(threshold))
        parts.append(
            Markup('<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(at, TOP, HEIGHT - BOTTOM)
        )
    return _svg(WIDTH, HEIGHT, description, parts)


def interval_chart(rows: Sequence[IntervalRow], *, description: str, low: float | None = None) -> Markup:
    """A line a row: the value with its interval, in per cent, from `low` (the values' own lowest ten) to 100."""
    found = [
        value
        for row in rows
        for value in (row.value, *(row.interval or ()), *(other for _, other in row.others))
        if value is not None
    ]
    if low is None:
        low = max(0.0, float(np.floor((min(found, default=0.0) - 0.02) * 10) / 10))
    height = TOP + ROW_HEIGHT * len(rows) + BOTTOM - 14
    across = _axis(low, 1.0, 10, WIDTH - 10)
    bottom = height - BOTTOM + 14
    parts = [
        Markup(
            '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text class="tick" x="{0}" y="{3}" '
            'text-anchor="{4}">{5:.0f}</text>'
        ).format(
            _number(across(tick)),
            TOP,
            bottom,
            bottom + 16,
            "end" if tick == 1.0 else "middle" if i else "start",
            100 * tick,
        )
        for i, tick in enumerate(_round_ticks(low, 1.0))
    ]
    for i, row in enumerate(rows):
        parts.append(_interval_row(row, TOP + ROW_HEIGHT * i, across))
    return _svg(WIDTH, height, description, parts)


def _interval_row(row: IntervalRow, top: float, across: Callable[[float], float]) -> Markup:
    middle = top + 30
    label = row.label if len(row.label) <= LABEL_CHARACTERS else row.label[: LABEL_CHARACTERS - 1] + "…"
    value = "undefined" if row.value is None else f"{100 * row.value:.1f}"
    parts = [
        Markup('<text class="label" x="10" y="{}">{}</text>').format(top + 15, label),
        Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH - 10, top + 15, value),
    ]
    if row.interval:
        start, end = (_number(across(edge)) for edge in row.interval)
        parts.append(Markup('<line class="interval" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(start, end, middle))
    for position, (name, other) in enumerate(row.others):
        if other is not None:
            parts.append(
                Markup('<circle class="other o{}" cx="{}" cy="{}" r="3.5"><title>{}</title></circle>').format(
                    position, _number(across(other)), middle, f"{name}: {100 * other:.1f}"
                )
            )
    if row.value is not None:
        parts.append(Markup('<circle class="point" cx="{}" cy="{}" r="5"/>').format(_number(across(row.value)), middle))
    return Markup("").join(parts)


def _frame(
    across: Callable[[float], float],
    up: Callable[[float], float],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
    *,
    percent: bool = False,
) -> Markup:
    """Grid lines, tick labels and axis labels."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in y_ticks:
        y = _number(up(tick))
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
                '<text class="tick" x="{3}" y="{2}" dy="4" text-anchor="end">{4}</text>'
            ).format(LEFT, right, y, LEFT - 6, f"{100 * tick:.0f}")
        )
    for i, tick in enumerate(x_ticks):
        anchor = "end" if percent and i == len(x_ticks) - 1 else "middle"
        text = f"{100 * tick:.0f}" if percent else f"{tick:g}"
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                _number(across(tick)), bottom + 16, anchor, text
            )
        )
    parts.append(
        Markup(
            '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
            '<text class="axis" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>'
        ).format(
            (LEFT + right) / 2, HEIGHT - 6, x_label + (", %" if percent else ""), (TOP + bottom) / 2, y_label + ", %"
        )
    )
    return Markup("").join(parts)


def _svg(width: float, height: float, description: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _number(width), _number(height), description, Markup("").join(parts)
    )


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _path(points: object, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    drawn = [f"{_number(across(float(x)))} {_number(up(float(y)))}" for x, y in points]  # type: ignore[attr-defined]
    return "M" + "L".join(drawn) if drawn else "M0 0"


def _cut(x: np.ndarray, y: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """The curve up to `end`, with the point at `end` itself."""
    if not len(x) or x[-1] <= end:
        return x, y
    keep = x <= end
    return np.append(x[keep], end), np.append(y[keep], np.interp(end, x, y))


def _ticks(end: float) -> Sequence[float]:
    return (0.0, 0.25, 0.5, 0.75, 1.0) if end == 1 else tuple(np.linspace(0, end, 4))


def _round_ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers between low and high."""
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    return [float(tick) for tick in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
