"""Which pixels a drawn shape marks: by the rule of the tool that it comes from, to the pixel.

* labelme's (`labelme.utils.shape_to_mask`): a coordinate is the middle of a pixel, and the edge is marked: a rectangle
  from 100 to 105 has 6 pixels a side.
* COCO's (`pycocotools.mask.frPyObjects`): a coordinate lies between pixels, and a pixel is marked where its middle is
  inside: a box at 100 with width 5 has 5 pixels a side.

Coordinates are pixels of the picture that was drawn on, x to the right and y down; `scale` = (x, y) takes them to the
picture that is marked. What lies outside is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Scale = tuple[float, float]

UPSAMPLED = 5  # COCO follows the edge in fifths of a pixel, so that the middle of a pixel is one of them


class Shape(Protocol):
    """Something that marks pixels."""

    @property
    def points(self) -> Sequence[Point]:
        """(x, y) that its extent can be told from."""

    def draw(self, width: int, height: int, scale: Scale) -> np.ndarray:
        """bool (height, width): the pixels that it marks."""


@dataclass(frozen=True)
class PixelPolygon:
    """labelme's polygon, and its rectangle with four corners."""

    points: tuple[Point, ...]

    def draw(self, width: int, height: int, scale: Scale) -> np.ndarray:
        canvas = Image.new("L", (width, height))
        ImageDraw.Draw(canvas).polygon(_scaled(self.points, scale), fill=1, outline=1)
        return np.array(canvas, dtype=bool)


@dataclass(frozen=True)
class PixelRectangle:
    """labelme's rectangle of two opposite corners, both of them marked."""

    points: tuple[Point, Point]

    def draw(self, width: int, height: int, scale: Scale) -> np.ndarray:
        canvas = Image.new("L", (width, height))
        (x0, y0), (x1, y1) = _scaled(self.points, scale)
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        ImageDraw.Draw(canvas).rectangle(box, fill=1, outline=1)
        return np.array(canvas, dtype=bool)


@dataclass(frozen=True)
class PixelCircle:
    """labelme's circle: its center and a point of its rim."""

    points: tuple[Point, Point]

    def draw(self, width: int, height: int, scale: Scale) -> np.ndarray:
        canvas = Image.new("L", (width, height))
        (x, y), rim = self.points
        radius = math.dist((x, y), rim)
        corners = _scaled([(x - radius, y - radius), (x + radius, y + radius)], scale)
        ImageDraw.Draw(canvas).ellipse(corners, fill=1, outline=1)
        return np.array(canvas, dtype=bool)


@dataclass(frozen=True)
class EdgePolygon:
    """COCO's polygon: the even-odd rule at the middles of the pixels, along an edge in fifths of a pixel."""

    points: tuple[Point, ...]

    def draw(self, width: int, height: int, scale: Scale) -> np.ndarray:
        corners = np.trunc(np.array(_scaled(self.points, scale)) * UPSAMPLED + 0.5).astype(np.int64)
        x, y = np.concatenate(
            [_fine_line(start, end) for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True)], axis=1
        )
        step = np.flatnonzero(np.diff(x))  # from one fine column to the next
        column = np.minimum(x[step], x[step + 1])
        row = np.minimum(y[step], y[step + 1])
        middle = UPSAMPLED // 2
        crosses = (column % UPSAMPLED == middle) & (column >= 0) & (column < UPSAMPLED * width)
        mask = np.zeros((height, width), dtype=bool)
        if not crosses.any():
            return mask
        column = column[crosses] // UPSAMPLED
        row = np.clip(-((middle - row[crosses]) // UPSAMPLED), 0, height)
        first, last = column.min(), column.max() + 1
        n_pixels = (last - first) * height
        crossings = np.bincount((column - first) * height + row, minlength=n_pixels)[:n_pixels]
        mask[:, first:last] = (np.cumsum(crossings) % 2 == 1).reshape(-1, height).T
        return mask


@dataclass(frozen=True)
class Bitmap:
    """Pixels that are given one by one, and where they lie on the picture that was drawn on; scaled to the nearest."""

    pixels: np.ndarray  # bool
    left: int
    top: int

    @property
    def points(self) -> tuple[Point, Point]:
        height, width = self.pixels.shape
        return (self.left, self.top), (self.left + width, self.top + height)

    def draw(self, width: int, height: int, scale: Scale) -> np.ndarray:
        rows = np.floor((np.arange(height) + 0.5) / scale[1]).astype(int) - self.top
        columns = np.floor((np.arange(width) + 0.5) / scale[0]).astype(int) - self.left
        is_row = (rows >= 0) & (rows < self.pixels.shape[0])
        is_column = (columns >= 0) & (columns < self.pixels.shape[1])
        mask = np.zeros((height, width), dtype=bool)
        mask[np.ix_(is_row, is_column)] = self.pixels[np.ix_(rows[is_row], columns[is_column])]
        return mask


def edge_box(x: float, y: float, width: float, height: float, *, degrees: float = 0.0) -> EdgePolygon:
    """COCO's box [x, y, width, height], turned clockwise about its middle by so many degrees."""
    corners = [(x, y), (x, y + height), (x + width, y + height), (x + width, y)]
    if degrees:
        middle_x, middle_y = x + width / 2, y + height / 2
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        corners = [
            (
                middle_x + cos * (px - middle_x) - sin * (py - middle_y),
                middle_y + sin * (px - middle_x) + cos * (py - middle_y),
            )
            for px, py in corners
        ]
    return EdgePolygon(tuple(corners))


def _scaled(points: Sequence[Point], scale: Scale) -> list[Point]:
    return [(x * scale[0], y * scale[1]) for x, y in points]


def _fine_line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """int64 (2, points): x and y from `start` to `end`, a point a step along the longer side, rounded as COCO does."""
    if (start == end).all():
        return start[:, None]
    across = abs(end - start)
    along = 0 if across[0] >= across[1] else 1
    low, high = (end, start) if start[along] > end[along] else (start, end)
    steps = np.arange(across[along] + 1)
    slope = float(high[1 - along] - low[1 - along]) / float(across[along])
    line = np.empty((2, steps.size), dtype=np.int64)
    line[along] = low[along] + steps
    line[1 - along] = np.trunc(low[1 - along] + slope * steps + 0.5).astype(np.int64)
    return line if low is start else line[:, ::-1]
