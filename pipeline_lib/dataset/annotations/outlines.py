"""What was read of annotations: for each annotated image its outlines, and what of it could not be read."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations.drawing import Scale, Shape

MAX_COORDINATE = 200_000  # pixels; a longer side is none of an image that is read
BAD_ENTRY = (DatasetError, AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError)
"""What reading an entry raises that is not as its format says."""

SHARES = "from 0 to 1 alone: shares of the image, where pixels belong; export it with coordinates in pixels"
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Outline:
    """One annotated defect: what marks its pixels, and the file and entry that say so."""

    name: str
    shapes: tuple[Shape, ...]
    where: str

    def mask(self, width: int, height: int, scale: Scale = (1.0, 1.0)) -> np.ndarray:
        """bool (height, width): the pixels of all its shapes together."""
        mask = np.zeros((height, width), dtype=bool)
        for shape in self.shapes:
            mask |= shape.draw(width, height, scale)
        return mask


@dataclass
class AnnotatedImage:
    """An image as an annotation names it. With `unreadable` no outline may be used: some of its defects are unknown."""

    path: str  # as written, with / between directories
    where: str
    size: tuple[int, int] | None = None  # width and height of the picture that was drawn on, where it is said
    outlines: list[Outline] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def is_annotated(self) -> bool:
        """Whether anything was annotated on it, readable or not."""
        return bool(self.outlines or self.unreadable)

    def says(self, size: tuple[Any, Any], where: str) -> None:
        """Note the width and height that were drawn on; 0 and nothing say nothing. Two sizes cannot both be true."""
        try:
            width, height = (int(float(side)) if side else 0 for side in size)
        except (TypeError, ValueError):
            width = height = 0
        if min(width, height) <= 0:
            return
        if self.size not in (None, (width, height)):
            self.unreadable.append(
                f"{where}: gives {width}x{height} pixels, another entry {'{}x{}'.format(*self.size)}"
            )
        self.size = (width, height)

    def add(self, name: Any, shapes: Sequence[Shape], where: str) -> None:
        """Add one defect. Raises DatasetError for one without a name, and for points that mark nothing."""
        if not isinstance(name, str) or not name.strip():
            raise DatasetError("an annotation without a name")
        numbers = [number for shape in shapes for point in shape.points for number in point]
        if not numbers or not all(math.isfinite(number) for number in numbers):
            raise DatasetError(f"{name} has no usable outline")
        if max(map(abs, numbers)) > MAX_COORDINATE:
            raise DatasetError(f"{name} has coordinates beyond {MAX_COORDINATE}")
        if max(map(abs, numbers)) <= 1 + _ROUNDING:
            raise DatasetError(f"{name} has coordinates {SHARES}")
        self.outlines.append(Outline(unicodedata.normalize("NFC", name.strip()), tuple(shapes), where))

    def reach(self) -> tuple[float, float]:
        """The largest x and y of all outlines."""
        points = [point for outline in self.outlines for shape in outline.shapes for point in shape.points]
        return max(x for x, _ in points), max(y for _, y in points)


@dataclass
class Annotations:
    """All that was annotated, and what belongs to no image, for people."""

    images: list[AnnotatedImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """The names of all outlines, sorted."""
        return sorted({outline.name for image in self.images for outline in image.outlines})


def posix(path: object) -> str:
    """A path of any system with / between directories."""
    return str(path).replace("\\", "/")


def said(error: Exception) -> str:
    """What a person is told of one of BAD_ENTRY."""
    is_clear = isinstance(error, DatasetError)
    return str(error) if is_clear else f"it is not as its format says: {type(error).__name__} {error}"
