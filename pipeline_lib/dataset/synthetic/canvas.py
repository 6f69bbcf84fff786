"""A drawing surface in units of the picture's height, and the random look of one picture."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, ...]  # red, green, blue and, for a glaze, opacity; 0-255

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Look:
    """Where a picture's chance comes from. Each use has its own generator, so that a defect moves nothing else."""

    key: tuple[int, ...]
    time: float  # from 0, the first picture of a folder, to 1, the last

    def rng(self, use: str) -> np.random.Generator:
        """The generator of one use."""
        return np.random.default_rng([*self.key, zlib.crc32(use.encode())])

    def near(self, use: str, value: float, spread: float) -> float:
        """A number around `value`: normal with standard deviation `spread`, cut at 2.5 of them."""
        return value + spread * float(np.clip(self.rng(use).standard_normal(), -2.5, 2.5))

    def colour(self, use: str, colour: Colour, spread: float = 6.0) -> Colour:
        """A colour a little lighter or darker than `colour`."""
        return shade(colour, 1.0 + spread / 100.0 * float(np.clip(self.rng(use).standard_normal(), -2.5, 2.5)))


def shade(colour: Colour, factor: float) -> Colour:
    """A colour times a factor; the opacity stays."""
    return tuple(min(255, max(0, round(c * factor))) for c in colour[:3]) + tuple(colour[3:])


def bezier(start: Point, first: Point, second: Point, end: Point, count: int = 24) -> list[Point]:
    """Points on a cubic Bezier curve."""
    t = np.linspace(0.0, 1.0, count)[:, None]
    p0, p1, p2, p3 = (np.asarray(p, dtype=np.float64) for p in (start, first, second, end))
    points = (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3
    return [(float(x), float(y)) for x, y in points]


def turned(points: Sequence[Point], angle_deg: float, center: Point) -> list[Point]:
    """Points rotated about a centre."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    cx, cy = center
    return [(cx + cos * (x - cx) - sin * (y - cy), cy + sin * (x - cx) + cos * (y - cy)) for x, y in points]


class Canvas:
    """Shapes in units of the picture's height, x from 0 to `aspect`, moved and turned by the pose."""

    def __init__(self, base: Image.Image, *, shift: Point = (0.0, 0.0), angle_deg: float = 0.0) -> None:
        self.size = base.size
        self.aspect = base.width / base.height
        self._scale = base.height * SUPERSAMPLING
        self._image = base.resize((base.width * SUPERSAMPLING, base.height * SUPERSAMPLING), Image.Resampling.BILINEAR)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._shift = shift
        self._angle_deg = angle_deg

    def picture(self) -> Image.Image:
        """What was drawn, at the base's size."""
        return self._image.reduce(SUPERSAMPLING)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        dx, dy = self._shift
        moved = turned(points, self._angle_deg, (self.aspect / 2, 0.5))
        return [((x + dx) * self._scale, (y + dy) * self._scale) for x, y in moved]

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon(self._pixels(points), fill=colour)

    def box(self, center: Point, size: Point, colour: Colour, *, angle_deg: float = 0.0) -> None:
        """A filled rectangle about its centre."""
        (x, y), (w, h) = center, (size[0] / 2, size[1] / 2)
        corners = [(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)]
        self.polygon(turned(corners, angle_deg, center), colour)

    def disc(self, center: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        ((x, y),), r = self._pixels([center]), radius * self._scale
        self._draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)

    def ring(self, center: Point, radius: float, width: float, colour: Colour) -> None:
        """A circle's line, `width` inwards from `radius`."""
        ((x, y),), r = self._pixels([center]), radius * self._scale
        self._draw.ellipse([x - r, y - r, x + r, y + r], outline=colour, width=max(1, round(width * self._scale)))

    def star(self, center: Point, radius: float, corners: int, colour: Colour, *, angle_deg: float = 0.0) -> None:
        """A regular polygon, such as a hexagon head."""
        steps = [math.radians(angle_deg + 360 * k / corners) for k in range(corners)]
        self.polygon([(center[0] + radius * math.cos(a), center[1] + radius * math.sin(a)) for a in steps], colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line with round joints and ends."""
        pixels, w = self._pixels(points), max(1, round(width * self._scale))
        self._draw.line(pixels, fill=colour, width=w, joint="curve")
        if w > 2:
            for x, y in (pixels[0], pixels[-1]):
                self._draw.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=colour)

    def band(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line for see-through colours, one polygon: overlapping joints would show."""
        path = np.asarray(points, dtype=np.float64)
        along = np.gradient(path, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
        edges = np.concatenate([path + across * width / 2, (path - across * width / 2)[::-1]])
        self.polygon([(float(x), float(y)) for x, y in edges], colour)

    def tube(self, points: Sequence[Point], width: float, colour: Colour, *, gloss: float = 0.5) -> None:
        """A round tube: darker at its edges, a highlight off its middle."""
        for k in range(5):
            share = k / 4
            offset = -0.10 * width * share
            inner = [(x + offset, y + offset) for x, y in points]
            self.line(inner, width * (1 - 0.82 * share), shade(colour, 0.55 + (0.5 + gloss) * share))
