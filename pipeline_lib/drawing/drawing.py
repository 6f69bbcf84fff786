"""A drawing of lines, boxes, dots and text, written as SVG for the page or as an SVG file.

One description of a figure serves both, so that a paper shows what the page shows. Colours and line widths are those of
`STYLES`; coordinates are in pixels from the top left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

Anchor = Literal["start", "middle", "end"]
FONT_PX = 12.0
_WIDTHS = (
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556,
    556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
    260, 334, 584,
)  # fmt: skip
"""Of Helvetica's characters from space to tilde, in thousandths of the font size (Adobe's Core 14 AFM)."""


@dataclass(frozen=True)
class Style:
    """How a mark looks; a colour that is None is not drawn."""

    stroke: str | None = None
    fill: str | None = None
    width_px: float = 1.0
    dash: tuple[float, ...] = ()


INK, MUTED, FAINT, RED, GREEN, BLUE = "#1b2330", "#5a6675", "#d8dee6", "#b3382c", "#2c7a4b", "#1f5fa8"
SERIES_COLOURS = (INK, BLUE, "#d55e00", GREEN, "#a0479b", "#8a6d00", "#4aa3df", RED)
"""After Okabe & Ito (2008): told apart with the common kinds of colour blindness; the first is the baseline's."""

STYLES: dict[str, Style] = {
    "label": Style(fill=INK),
    "tick": Style(fill=MUTED),
    "grid": Style(stroke=FAINT),
    "zero": Style(stroke=MUTED, dash=(3, 3)),
    "interval": Style(stroke=MUTED, width_px=2),
    "bar": Style(fill="#b9cde4"),
    "bar-baseline": Style(fill="#c3c8cf"),
    "worse": Style(fill=RED),
    "better": Style(fill=GREEN),
    "no": Style(fill=BLUE),
    "not": Style(fill=MUTED),
    "baseline": Style(fill=INK),
    **{f"series-{i}": Style(stroke=colour, width_px=1.8) for i, colour in enumerate(SERIES_COLOURS)},
    **{f"dot-{i}": Style(fill=colour) for i, colour in enumerate(SERIES_COLOURS)},
}


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: Sequence[tuple[float, float]]
    style: str


@dataclass(frozen=True)
class Box:
    """A filled rectangle; x, y is its top left corner."""

    x: float
    y: float
    width: float
    height: float
    style: str


@dataclass(frozen=True)
class Dot:
    """A filled circle, with a title that a browser shows over it."""

    x: float
    y: float
    style: str
    radius: float = 4.5
    title: str = ""


@dataclass(frozen=True)
class Text:
    """A line of text; x, y is the base line at the anchor. Upright text reads from bottom to top."""

    x: float
    y: float
    text: str
    style: str = "label"
    anchor: Anchor = "start"
    upright: bool = False


Mark = Line | Box | Dot | Text


@dataclass(frozen=True)
class Drawing:
    """A figure: its size in pixels, what it shows in words, and its marks, later ones on top."""

    width: float
    height: float
    description: str
    marks: Sequence[Mark] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.marks)


def text_width(text: str, font_px: float = FONT_PX) -> float:
    """Width of a line of text in Helvetica, in pixels; other characters count as a digit."""
    units = (_WIDTHS[ord(c) - 32] if 32 <= ord(c) <= 126 else 556 for c in text)
    return sum(units) * font_px / 1000


def inline_svg(drawing: Drawing) -> Markup:
    """The drawing as an element of a page that has `style_sheet()`."""
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        drawing.width, drawing.height, drawing.description, Markup("").join(_element(mark) for mark in drawing.marks)
    )


def svg_file(drawing: Drawing) -> bytes:
    """The drawing as an SVG file of its own."""
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}">'
    )
    body = Markup("").join(_element(mark) for mark in drawing.marks)
    parts = [
        Markup('<?xml version="1.0" encoding="UTF-8"?>\n'),
        head.format(drawing.width, drawing.height),
        Markup("<title>{}</title><style>{}</style>").format(drawing.description, Markup(style_sheet())),
        body,
        Markup("</svg>\n"),
    ]
    return Markup("").join(parts).encode()


def style_sheet() -> str:
    """CSS of all marks."""
    rules = [f"text {{ font: {FONT_PX:.0f}px Helvetica, Arial, sans-serif; }}"]
    for name, style in STYLES.items():
        dash = f" stroke-dasharray: {' '.join(f'{d:g}' for d in style.dash)};" if style.dash else ""
        rules.append(
            f".{name} {{ fill: {style.fill or 'none'}; stroke: {style.stroke or 'none'}; "
            f"stroke-width: {style.width_px:g};{dash} }}"
        )
    return "\n".join(rules)


def _element(mark: Mark) -> Markup:
    match mark:
        case Line(points, style):
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            return Markup('<path class="{}" d="M{}"/>').format(style, path)
        case Box(x, y, width, height, style):
            return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                style, x, y, max(0.0, width), height
            )
        case Dot(x, y, style, radius, title):
            shown = Markup("<title>{}</title>").format(title) if title else ""
            return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:g}">{}</circle>').format(
                style, x, y, radius, shown
            )
        case Text(x, y, text, style, anchor, upright):
            place = Markup('transform="translate({:.1f} {:.1f}) rotate(-90)"' if upright else 'x="{:.1f}" y="{:.1f}"')
            return Markup('<text class="{}" {} text-anchor="{}">{}</text>').format(
                style, place.format(x, y), anchor, text
            )
