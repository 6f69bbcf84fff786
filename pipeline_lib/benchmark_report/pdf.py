"""A drawing as a PDF file of one page (PDF 1.4), in Helvetica, which every reader brings along.

Characters outside Windows-1252 become question marks. Widths of Helvetica's characters are Adobe's (Core 14 AFM).
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline_lib.benchmark_report.drawing import FONT_PX, STYLES, Box, Dot, Drawing, Line, Mark, Style, Text

_ARC = 0.5522847498  # control points of a quarter circle as a cubic, in radii
_WIDTHS = (
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556,
    556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
    260, 334, 584,
)  # fmt: skip
"""Of the characters from space to tilde, in thousandths of the font size."""


def pdf_file(drawing: Drawing) -> bytes:
    """The drawing as a PDF file; the same drawing gives the same bytes."""
    content = "\n".join(line for mark in drawing.marks for line in _operators(mark, drawing.height)).encode("cp1252")
    page = (
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {drawing.width:.1f} {drawing.height:.1f}] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>"
    )
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page.encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Title (%s) /Producer (fedpatch) >>" % _escaped(drawing.description).encode("cp1252"),
    ]
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 6 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def text_width(text: str, font_px: float = FONT_PX) -> float:
    """Width of a line of text in Helvetica, in pixels; other characters count as a digit."""
    units = (_WIDTHS[ord(c) - 32] if 32 <= ord(c) <= 126 else 556 for c in text)
    return sum(units) * font_px / 1000


def _operators(mark: Mark, height: float) -> Iterator[str]:
    style = STYLES[mark.style]
    yield "q"
    yield from _paint_settings(style)
    match mark:
        case Line(points, _):
            yield " ".join(f"{x:.2f} {height - y:.2f} {'l' if i else 'm'}" for i, (x, y) in enumerate(points)) + " S"
        case Box(x, y, width, tall, _):
            yield f"{x:.2f} {height - y - tall:.2f} {max(0.0, width):.2f} {tall:.2f} re f"
        case Dot(x, y, _, radius, _):
            yield _circle(x, height - y, radius)
        case Text(x, y, text, _, anchor, upright):
            shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * text_width(text)
            matrix = (
                f"0 1 -1 0 {x:.2f} {height - y - shift:.2f}" if upright else f"1 0 0 1 {x - shift:.2f} {height - y:.2f}"
            )
            yield f"BT /F1 {FONT_PX:g} Tf {matrix} Tm ({_escaped(text)}) Tj ET"
    yield "Q"


def _paint_settings(style: Style) -> Iterator[str]:
    if style.fill:
        yield f"{_rgb(style.fill)} rg"
    if style.stroke:
        yield f"{_rgb(style.stroke)} RG {style.width_px:g} w 1 J 1 j"
        yield f"[{' '.join(f'{d:g}' for d in style.dash)}] 0 d"


def _circle(x: float, y: float, radius: float) -> str:
    r, c = radius, radius * _ARC
    return (
        f"{x + r:.2f} {y:.2f} m "
        f"{x + r:.2f} {y + c:.2f} {x + c:.2f} {y + r:.2f} {x:.2f} {y + r:.2f} c "
        f"{x - c:.2f} {y + r:.2f} {x - r:.2f} {y + c:.2f} {x - r:.2f} {y:.2f} c "
        f"{x - r:.2f} {y - c:.2f} {x - c:.2f} {y - r:.2f} {x:.2f} {y - r:.2f} c "
        f"{x + c:.2f} {y - r:.2f} {x + r:.2f} {y - c:.2f} {x + r:.2f} {y:.2f} c f"
    )


def _rgb(colour: str) -> str:
    return " ".join(f"{int(colour[i : i + 2], 16) / 255:.3f}" for i in (1, 3, 5))


def _escaped(text: str) -> str:
    known = text.encode("cp1252", "replace").decode("cp1252")
    return known.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").replace("\n", " ")
