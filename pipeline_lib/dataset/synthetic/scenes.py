"""The six parts, each drawn as it should be or with what is open, loose or missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from pipeline_lib.dataset.synthetic.canvas import Canvas, Colour, Look, Point, bezier, shade, turned

Scene = Callable[[Canvas, Look, Collection[str]], None]

BLACK: Colour = (34, 34, 38)
WHITE: Colour = (206, 204, 196)
STEEL: Colour = (150, 152, 155)
BLUE: Colour = (36, 84, 176)

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "engine_wiring": (104, 108, 104),
    "pipe_clip": (126, 120, 110),
    "pipe_staple": (92, 98, 108),
    "tank_screw": (72, 74, 76),
    "underbody_pipes": (118, 116, 108),
    "underbody_screw": (100, 104, 106),
}


def screw(canvas: Canvas, look: Look, use: str, center: Point, radius: float) -> None:
    """A flange screw with a hexagon head, turned as it happened to stop; of bright or of blackened steel."""
    finish = float(look.rng(f"{use}/finish").choice([1.0, 0.85, 0.55]))
    colour = shade(look.colour(f"{use}/colour", STEEL, 9), finish)
    angle = float(look.rng(f"{use}/angle").uniform(0, 60))
    canvas.disc((center[0] + 0.08 * radius, center[1] + 0.1 * radius), 1.02 * radius, (0, 0, 0, 80))
    canvas.disc(center, radius, colour)
    canvas.ring(center, radius, 0.12 * radius, (70, 70, 74))
    canvas.star(center, 0.66 * radius, 6, shade(colour, 0.65), angle_deg=angle)
    canvas.star(center, 0.56 * radius, 6, shade(colour, 1.15), angle_deg=angle)
    canvas.disc(center, 0.22 * radius, shade(colour, 0.72))


def hole(canvas: Canvas, look: Look, center: Point, radius: float) -> None:
    """A drilled hole: what is left where a screw is missing."""
    canvas.ring(center, 1.25 * radius, 0.3 * radius, (138, 140, 140, 110))
    canvas.disc(center, radius, (18, 18, 20))
    canvas.disc((center[0] - 0.15 * radius, center[1] - 0.2 * radius), 0.6 * radius, (30, 30, 32))


def fastening(canvas: Canvas, look: Look, use: str, center: Point, *, angle_deg: float, is_open: bool) -> None:
    """A white strap across the harness; open, its tongue stands off and the lock is empty."""
    colour = look.colour(f"{use}/colour", WHITE, 5)
    angle = angle_deg + look.near(f"{use}/angle", 0.0, 6.0)
    lock = turned([(center[0], center[1] + 0.075)], angle, center)[0]
    if is_open:
        swing = float(look.rng(f"{use}/swing").uniform(8, 60)) * (1 if look.rng(f"{use}/side").random() < 0.5 else -1)
        canvas.box((lock[0], lock[1]), (0.05, 0.035), colour, angle_deg=angle)
        canvas.box(lock, (0.026, 0.016), (60, 60, 62), angle_deg=angle)
        strap = [(center[0] - 0.015, center[1] - 0.08), (center[0] + 0.015, center[1] - 0.08),
                 (center[0] + 0.012, center[1] + 0.05), (center[0] - 0.012, center[1] + 0.05)]  # fmt: skip
        canvas.polygon(turned(turned(strap, angle, center), swing, lock), colour)
        return
    canvas.box((center[0] + 0.008, center[1] + 0.008), (0.034, 0.17), (0, 0, 0, 80), angle_deg=angle)
    canvas.box(center, (0.03, 0.16), colour, angle_deg=angle)
    canvas.box(lock, (0.05, 0.035), colour, angle_deg=angle)
    canvas.line(turned([(center[0], center[1] - 0.07), (center[0], center[1] + 0.05)], angle, center), 0.005,
                (150, 150, 146))  # fmt: skip


def blue_hoop(canvas: Canvas, look: Look, place: Point, slide: float) -> None:
    """The blue hoop around the harness, `slide` along from its place."""
    center = (place[0] + slide, place[1] - 0.12 * slide)
    blue = look.colour("hoop/colour", BLUE, 6)
    canvas.box(center, (0.045, 0.13), shade(blue, 0.75), angle_deg=-8.0)
    canvas.box((center[0] - 0.005, center[1]), (0.035, 0.13), shade(blue, 1.25), angle_deg=-8.0)
    canvas.disc((center[0], center[1] + 0.072), 0.022, blue)


def draw_engine_wiring(canvas: Canvas, look: Look, faults: Collection[str]) -> None:
    """Harness with two connectors, three fastenings and a blue hoop."""
    canvas.box((0.5, 0.04), (1.4, 0.14), (70, 74, 72))
    canvas.box((0.5, 0.97), (1.4, 0.12), (84, 86, 82))
    for x in (0.12, 0.5, 0.88):
        canvas.disc((x, 0.045), 0.022, (44, 46, 46))
    bend = look.near("bend", 0.0, 0.025)
    for number, colour in enumerate([(176, 52, 40), (196, 168, 48), (50, 120, 62), (188, 186, 180)]):
        end = (0.16 + 0.05 * number, 0.26)
        wire = bezier((0.3, 0.56), (0.22, 0.5), (end[0], look.near(f"wire{number}", 0.45, 0.03)), end)
        canvas.tube(wire, 0.022, look.colour(f"wire{number}/colour", colour, 8), gloss=0.3)
    harness = bezier((-0.1, 0.64), (0.3, 0.50 + bend), (0.62, 0.72 - bend), (1.1, 0.5), 48)
    canvas.band([(x + 0.012, y + 0.02) for x, y in harness], 0.115, (0, 0, 0, 70))
    canvas.tube(harness, 0.105, look.colour("harness", BLACK, 8), gloss=0.7)
    for k in range(1, 47):
        (x0, y0), (x1, y1) = harness[k], harness[k + 1]
        across = math.degrees(math.atan2(y1 - y0, x1 - x0))
        canvas.box((x0, y0), (0.005, 0.098), (12, 12, 14), angle_deg=across)
    branch = bezier((0.66, 0.62), (0.7, 0.45), (0.76, 0.4), (0.77, 0.3))
    canvas.tube(branch, 0.06, look.colour("harness", BLACK, 8), gloss=0.7)
    for use, center in (("left", (0.235, 0.2)), ("right", (0.77, 0.24))):
        body = look.colour(f"{use}/body", (178, 176, 168) if use == "left" else (58, 60, 64), 6)
        canvas.box((center[0] + 0.01, center[1] + 0.014), (0.24, 0.16), (0, 0, 0, 80))
        canvas.box(center, (0.24, 0.16), body)
        canvas.box((center[0], center[1] - 0.012), (0.2, 0.09), (40, 40, 42))
        for pin in range(5):
            canvas.box((center[0] - 0.08 + 0.04 * pin, center[1] - 0.012), (0.018, 0.055), (172, 146, 84))
    for number, (at, tilt) in enumerate(((9, -5.0), (24, 14.0), (41, -9.0))):
        name = f"fastening_{number}"
        fastening(canvas, look, name, harness[at], angle_deg=tilt, is_open=name in faults)
    slide = look.near("hoop", 0.0, 0.008)
    away = 0.10 + 0.05 * float(look.rng("hoop/slide").random())
    if "hoop_slid" in faults or "hoop_doubled" in faults:
        blue_hoop(canvas, look, harness[31], slide + away)
    if "hoop_slid" not in faults and "hoop_missing" not in faults:
        blue_hoop(canvas, look, harness[31], slide)


def draw_pipe_clip(canvas: Canvas, look: Look, faults: Collection[str]) -> None:
    """Pipe held by a black clip on a bracket; unclipped, the clip's arm stands open."""
    canvas.box((0.5, 0.5), (0.3, 1.3), (96, 92, 86))
    for y in (0.12, 0.9):
        canvas.disc((0.5, y), 0.035, (60, 58, 56))
    sag = look.near("sag", 0.0, 0.008)
    pipe = bezier((-0.1, 0.44), (0.3, 0.45 + sag), (0.6, 0.47 + 1.4 * sag), (1.1, 0.5), 40)
    canvas.band([(x + 0.01, y + 0.03) for x, y in pipe], 0.12, (0, 0, 0, 70))
    canvas.tube(pipe, 0.11, look.colour("pipe", (128, 132, 138), 7), gloss=0.9)
    thin = bezier((-0.1, 0.7), (0.3, 0.72), (0.7, look.near("thin", 0.7, 0.015)), (1.1, 0.74), 40)
    canvas.tube(thin, 0.045, look.colour("thin/colour", (44, 60, 48), 7))
    clip = look.colour("clip", (40, 40, 44), 9)
    canvas.box((0.5, 0.585), (0.2, 0.075), clip)
    canvas.box((0.5, 0.735), (0.09, 0.09), clip)
    canvas.box((0.415, 0.48), (0.035, 0.2), clip)
    tilt = look.near("arm", 0.0, 1.8)
    if "unclipped" in faults:
        tilt -= 4 + 30 * float(look.rng("arm/open").beta(1.0, 1.8))
    arm = [(0.40, 0.365), (0.61, 0.365), (0.625, 0.40), (0.625, 0.55), (0.59, 0.55), (0.585, 0.41), (0.40, 0.405)]
    canvas.polygon(turned(arm, tilt, (0.415, 0.385)), clip)
    canvas.line(turned([(0.43, 0.378), (0.59, 0.378)], tilt, (0.415, 0.385)), 0.008, (96, 96, 100))
    canvas.disc((0.415, 0.385), 0.018, (74, 74, 78))


def draw_pipe_staple(canvas: Canvas, look: Look, faults: Collection[str]) -> None:
    """Two pipes plugged together; the wire staple that locks the joint may be missing."""
    for y in (0.18, 0.86):
        canvas.box((0.5, y), (1.4, 0.04), (70, 76, 84))
    axis = 0.52 + look.near("axis", 0.0, 0.006)
    canvas.band([(-0.1, axis + 0.03), (1.1, axis + 0.03)], 0.2, (0, 0, 0, 70))
    canvas.tube([(-0.1, axis), (0.52, axis)], 0.15, look.colour("pipe", (58, 60, 64), 7), gloss=0.8)
    canvas.tube([(0.50, axis), (1.1, axis)], 0.12, look.colour("hose", (150, 148, 140), 6), gloss=0.5)
    collar = look.colour("collar", (82, 86, 90), 6)
    canvas.box((0.5, axis), (0.2, 0.21), collar)
    canvas.box((0.5, axis - 0.06), (0.2, 0.03), (128, 132, 136))
    for x in (0.45, 0.55):
        canvas.box((x, axis), (0.022, 0.15), (30, 30, 34))
    canvas.box((0.43, axis + 0.13), (0.05, 0.05), collar)
    canvas.ring((0.2, axis), 0.035, 0.008, (120, 120, 120, 120))
    if "missing" not in faults:
        finish = float(look.rng("wire/finish").choice([1.0, 0.85, 0.7]))
        wire = shade(look.colour("wire", (176, 178, 180), 8), finish)
        lift = look.near("lift", 0.0, 0.008)
        top, bottom = axis - 0.125 + lift, axis + 0.085 + lift
        loop = [(0.45, bottom), (0.45, top + 0.03), (0.465, top), (0.535, top), (0.55, top + 0.03), (0.55, bottom)]
        canvas.band([(x + 0.006, y + 0.008) for x, y in loop], 0.016, (0, 0, 0, 90))
        canvas.line(loop, 0.015, wire)


def draw_tank_screw(canvas: Canvas, look: Look, faults: Collection[str]) -> None:
    """Fuel tank with ribs, a strap and four screws; one of them may be missing."""
    for number in range(4):
        x = 0.12 + 0.37 * number
        canvas.line([(x, -0.1), (x - 0.05, 1.1)], 0.05, (58, 60, 62))
        canvas.line([(x - 0.015, -0.1), (x - 0.065, 1.1)], 0.012, (98, 100, 102))
    canvas.box((0.667, 0.52), (1.6, 0.24), (0, 0, 0, 60))
    canvas.box((0.667, 0.5), (1.6, 0.22), look.colour("strap", (116, 118, 120), 5))
    for y in (0.40, 0.60):
        canvas.line([(-0.1, y), (1.45, y)], 0.008, (150, 152, 154))
    for center in ((0.42, 0.5), (0.92, 0.5)):
        hole(canvas, look, center, 0.017)
    canvas.box((0.98, 0.84), (0.3, 0.12), look.colour("label", (196, 194, 186), 4))
    bars = look.rng("label/bars").uniform(0.003, 0.011, size=12)
    for number, width in enumerate(bars):
        canvas.box((0.86 + 0.021 * number, 0.84), (float(width), 0.08), (40, 40, 42))
    for number, center in enumerate(((0.2, 0.5), (0.667, 0.47), (1.14, 0.5), (0.3, 0.84))):
        name = f"screw_{number}"
        if name in faults:
            hole(canvas, look, center, 0.026)
        else:
            screw(canvas, look, name, center, 0.052)


def draw_underbody_pipes(canvas: Canvas, look: Look, faults: Collection[str]) -> None:
    """Four pipes that run along the underbody, with holders; nothing is ever missing here, only in the way."""
    canvas.box((0.667, 0.1), (1.6, 0.26), (96, 94, 88))
    canvas.box((0.667, 0.93), (1.6, 0.18), (88, 88, 84))
    for x in (0.2, 0.62, 1.1):
        canvas.disc((x, 0.11), 0.04, (50, 50, 48))
    colours: list[Colour] = [(60, 64, 68), (140, 142, 140), (44, 46, 50), (112, 96, 74)]
    for number, colour in enumerate(colours):
        y = 0.32 + 0.13 * number
        bow = look.near(f"pipe{number}", 0.0, 0.012)
        pipe = bezier((-0.1, y), (0.4, y - 0.04 + bow), (0.8, y + 0.08 + bow), (1.45, y + 0.02), 48)
        canvas.band([(px + 0.01, py + 0.025) for px, py in pipe], 0.07, (0, 0, 0, 60))
        canvas.tube(pipe, 0.058 + 0.012 * (number % 2), look.colour(f"pipe{number}/colour", colour, 6), gloss=0.8)
    for number, x in enumerate((0.34, 1.0)):
        place = x + look.near(f"holder{number}", 0.0, 0.006)
        canvas.box((place, 0.53), (0.09, 0.54), look.colour(f"holder{number}/colour", (52, 52, 56), 8), angle_deg=3)
        for y in (0.31, 0.75):
            screw(canvas, look, f"holder{number}/{y}", (place, y), 0.026)


def draw_underbody_screw(canvas: Canvas, look: Look, faults: Collection[str]) -> None:
    """Underbody plate with beads, drain holes and one screw."""
    canvas.polygon([(-0.1, 0.2), (0.5, 0.16), (1.45, 0.26), (1.45, 0.34), (0.5, 0.24), (-0.1, 0.28)], (78, 82, 84))
    canvas.polygon([(-0.1, 0.78), (0.7, 0.74), (1.45, 0.8), (1.45, 0.86), (0.7, 0.81), (-0.1, 0.85)], (80, 84, 86))
    for center, radius in (((0.25, 0.5), 0.05), ((1.12, 0.56), 0.042), ((0.95, 0.12), 0.03), ((0.4, 0.92), 0.03)):
        canvas.disc((center[0] - 0.004, center[1] - 0.006), radius + 0.012, (132, 136, 138))
        canvas.disc(center, radius, (26, 27, 28))
    x, y = 0.68 + look.near("x", 0.0, 0.004), 0.5 + look.near("y", 0.0, 0.004)
    canvas.disc((x, y), 0.1, look.colour("seat", (112, 116, 118), 5))
    canvas.ring((x, y), 0.1, 0.008, (84, 86, 88))
    if "missing" in faults:
        hole(canvas, look, (x, y), 0.03)
    else:
        screw(canvas, look, "screw", (x, y), 0.058)


SCENES: dict[str, Scene] = {
    "engine_wiring": draw_engine_wiring,
    "pipe_clip": draw_pipe_clip,
    "pipe_staple": draw_pipe_staple,
    "tank_screw": draw_tank_screw,
    "underbody_pipes": draw_underbody_pipes,
    "underbody_screw": draw_underbody_screw,
}
