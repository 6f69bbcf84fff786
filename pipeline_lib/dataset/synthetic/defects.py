"""Defects: which ones a test folder's picture has, the foreign things that are drawn on top, and the masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from scipy.ndimage import binary_fill_holes

from pipeline_lib.dataset.synthetic.canvas import Canvas, Colour, Look, bezier, shade, turned

OBSTRUCTIONS = ("cable", "tape", "blob", "scratch", "dent")
SEVERITY_WEIGHTS = {"critical": 3.0, "major": 2.0, "minor": 1.0}  # for evaluation.defect_weights: severity_weight
VISIBLE_CHANGE = 6  # a pixel is marked when a colour of it differs by more than this, of 255


SOLID = {"missing", "cardboard", "obstruction", "operator"}  # defects whose region has no gaps


@dataclass(frozen=True)
class Fault:
    """One defect channel: its name in defects_config.json, and what is drawn or left out."""

    defect_name: str
    part: str


def entries(category: str, scale: float) -> list[dict[str, Any]]:
    """The category's defects_config.json; absolute saturation thresholds are pixels at this scale."""

    def entry(name: str, value: int, threshold: float, relative: bool, severity: str) -> dict[str, Any]:
        size = threshold if relative else max(1, round(threshold * scale * scale))
        return {
            "defect_name": name,
            "pixel_value": value,
            "saturation_threshold": size,
            "relative_saturation": relative,
            "severity": severity,
            "severity_weight": SEVERITY_WEIGHTS[severity],
        }

    obstruction = entry("obstruction", 160, 900, False, "major")
    operator = entry("operator", 128, 0.3, True, "minor")
    missing = entry("missing", 255, 0.7, True, "critical")
    match category:
        case "engine_wiring":
            return [
                entry("fastening", 255, 0.5, True, "critical"),
                entry("blue_hoop", 224, 1200, False, "critical"),
                entry("cardboard", 192, 0.4, True, "minor"),
                obstruction,
            ]
        case "pipe_clip":
            return [entry("unclipped", 255, 0.5, True, "critical"), operator]
        case "underbody_pipes":
            return [obstruction, operator]
        case "pipe_staple":
            return [entry("missing", 255, 600, False, "critical")]
        case _:
            return [missing]


def choose_faults(category: str, folder: str, look: Look) -> list[Fault]:
    """The defects of one picture in a test folder; `multiple` has two or three."""
    rng = look.rng("faults")
    hoop = ("hoop_missing", "hoop_missing", "hoop_slid", "hoop_doubled")[int(rng.integers(4))]
    fastenings = [Fault("fastening", f"fastening_{k}") for k in rng.permutation(3)]
    obstruction = Fault("obstruction", OBSTRUCTIONS[int(rng.integers(len(OBSTRUCTIONS)))])
    match folder:
        case "good":
            return []
        case "fastening":
            return fastenings[: 2 if rng.random() < 0.15 else 1]
        case "blue_hoop":
            return [Fault("blue_hoop", hoop)]
        case "multiple" if category == "engine_wiring":
            others = [Fault("blue_hoop", hoop), Fault("cardboard", "cardboard"), obstruction]
            order = rng.permutation(3)
            return [fastenings[0], *(others[k] for k in order[: 1 if rng.random() < 0.6 else 2])]
        case "multiple":
            return [obstruction, Fault("operator", "operator")]
        case "obstruction":
            return [obstruction]
        case "missing" if category == "tank_screw":
            return [Fault("missing", f"screw_{int(rng.integers(4))}")]
        case _:
            return [Fault(folder, folder)]


def draw_foreign(canvas: Canvas, look: Look, fault: Fault) -> None:
    """Draw what is in view and should not be; a fault of the part itself is left to the scene."""
    rng = look.rng(f"foreign/{fault.part}")
    x, y = float(rng.uniform(0.2, 0.8)) * canvas.aspect, float(rng.uniform(0.25, 0.75))
    turn = float(rng.uniform(0, 360))
    match fault.part:
        case "cable":
            length = float(rng.uniform(0.15, 0.3))
            bend = float(rng.uniform(-0.1, 0.1))
            ends = turned([(x - length, y), (x - length / 3, y + bend), (x + length / 3, y - bend), (x + length, y)],
                          turn, (x, y))  # fmt: skip
            cable_colours: list[Colour] = [(30, 30, 32), (120, 52, 44), (90, 92, 94)]
            canvas.tube(
                bezier(ends[0], ends[1], ends[2], ends[3]),
                float(rng.uniform(0.012, 0.026)),
                cable_colours[int(rng.integers(3))],
            )
        case "tape":
            size = (float(rng.uniform(0.1, 0.24)), float(rng.uniform(0.03, 0.06)))
            canvas.box((x, y), size, (198, 188, 150, int(rng.integers(120, 235))), angle_deg=turn)
        case "blob":
            radius = float(rng.uniform(0.02, 0.055))
            tone: Colour = (24, 22, 18, int(rng.integers(110, 225)))
            angles = np.linspace(0, math.tau, 16, endpoint=False)
            radii = radius * rng.uniform(0.7, 1.3, size=16)
            canvas.polygon([(x + float(r) * math.cos(a), y + float(r) * math.sin(a))
                            for a, r in zip(angles, radii, strict=True)], tone)  # fmt: skip
        case "scratch":
            length = float(rng.uniform(0.08, 0.2))
            for k in range(int(rng.integers(1, 4))):
                ends = turned([(x - length, y + 0.014 * k), (x + length, y + 0.014 * k)], turn, (x, y))
                canvas.band(ends, float(rng.uniform(0.004, 0.008)), (205, 205, 200, 210))
        case "dent":
            radius = float(rng.uniform(0.03, 0.06))
            for k in range(6):
                share = 1 - k / 6
                canvas.disc((x + 0.2 * radius * k / 6, y + 0.2 * radius * k / 6), radius * share, (0, 0, 0, 26))
            canvas.disc((x + 0.5 * radius, y + 0.5 * radius), 0.25 * radius, (255, 255, 255, 60))
        case "cardboard":
            size = (float(rng.uniform(0.18, 0.38)), float(rng.uniform(0.12, 0.25)))
            brown = look.colour("cardboard", (150, 116, 76), 8)
            canvas.box((x + 0.012, y + 0.016), size, (0, 0, 0, 70), angle_deg=turn)
            canvas.box((x, y), size, brown, angle_deg=turn)
            for k in range(1, 8):
                offset = size[1] * (k / 8 - 0.5)
                ends = turned([(x - size[0] / 2, y + offset), (x + size[0] / 2, y + offset)], turn, (x, y))
                canvas.line(ends, 0.004, shade(brown, 0.88))
        case "operator":
            _draw_glove(canvas, rng)


def _draw_glove(canvas: Canvas, rng: np.random.Generator) -> None:
    """A gloved hand that reaches in from the lower edge."""
    x, y = float(rng.uniform(0.25, 0.75)) * canvas.aspect, float(rng.uniform(0.62, 0.85))
    tone = ((60, 74, 96), (120, 122, 124), (36, 36, 40))[int(rng.integers(3))]
    lean = float(rng.uniform(-25, 25))
    sleeve = turned([(x - 0.1, 1.3), (x + 0.1, 1.3), (x + 0.085, y), (x - 0.085, y)], lean, (x, y))
    canvas.polygon(sleeve, shade(tone, 0.6))
    canvas.disc((x, y), 0.095, tone)
    for number, (spread, length) in enumerate(((-38, 0.15), (-14, 0.2), (4, 0.22), (20, 0.2), (58, 0.15))):
        tip = turned([(x, y - length - 0.04)], lean + spread + float(rng.uniform(-5, 5)), (x, y))[0]
        canvas.tube([(x, y), tip], 0.05, shade(tone, 0.9 + 0.04 * number), gloss=0.2)
    canvas.disc((x, y), 0.07, shade(tone, 1.1))


def change_mask(clean: Image.Image, faulty: Image.Image, *, solid: bool) -> np.ndarray:
    """The pixels that a fault changes, bool (height, width), pinholes closed; never empty where anything changed.

    Both pictures are without noise. `solid` also marks what is enclosed: a missing part's whole region, or all of a
    foreign thing, though it may have the colour of what is behind it here and there.
    """
    difference = np.asarray(ImageChops.difference(clean, faulty)).max(axis=2)
    changed = difference > min(VISIBLE_CHANGE, max(int(difference.max()) - 1, 0))
    closed = Image.fromarray(changed.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))
    mask: np.ndarray = np.asarray(closed.filter(ImageFilter.MinFilter(3))) > 0
    return np.asarray(binary_fill_holes(mask)) if solid else mask
