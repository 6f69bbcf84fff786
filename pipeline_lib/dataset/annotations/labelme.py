"""labelme (github.com/wkentaro/labelme), a file an image; and what X-AnyLabeling writes in its form."""

from __future__ import annotations

import base64
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations.drawing import Bitmap, PixelCircle, PixelPolygon, PixelRectangle, Point, Shape
from pipeline_lib.dataset.annotations.outlines import BAD_ENTRY, AnnotatedImage, posix, said
from pipeline_lib.dataset.images import decode_image

_ACCEPTED = "draw polygons, rectangles, circles or masks"


def read_labelme(path: Path, content: dict[str, Any]) -> AnnotatedImage:
    """The outlines of one file; shapes of one label and one group are one defect, as in `labelme.utils`."""
    image = AnnotatedImage(posix(content.get("imagePath") or path.stem), str(path))
    image.says((content.get("imageWidth"), content.get("imageHeight")), str(path))
    groups: dict[Hashable, tuple[str, Any, list[Shape]]] = {}
    for number, shape in enumerate(content["shapes"], start=1):
        where = f"{path}, shape {number}"
        try:
            drawn, label, group = _shape(shape), shape.get("label"), shape.get("group_id")
            key = number if group is None else (str(label), str(group))
            groups.setdefault(key, (where, label, []))[2].append(drawn)
        except BAD_ENTRY as error:
            image.unreadable.append(f"{where}: {said(error)}")
    for where, label, shapes in groups.values():
        try:
            image.add(label, shapes, where)
        except DatasetError as error:
            image.unreadable.append(f"{where}: {error}")
    return image


def _shape(shape: dict[str, Any]) -> Shape:
    points: list[Point] = [(float(x), float(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type") or "polygon"
    match kind, points:
        case ("polygon", [_, _, _, *_]) | ("rectangle" | "rotation" | "oriented_rectangle", [_, _, _, _]):
            return PixelPolygon(tuple(points))
        case "rectangle", [first, second]:
            return PixelRectangle((first, second))
        case "circle", [center, rim]:
            return PixelCircle((center, rim))
        case "mask", [(left, top), (right, bottom)]:
            return _bitmap(shape.get("mask"), int(left), int(top), int(right), int(bottom))
        case (("line" | "linestrip" | "point" | "points"), _):
            raise DatasetError(f"a {kind} has no area; {_ACCEPTED}")
    raise DatasetError(f"a {kind} of {len(points)} points is not read; {_ACCEPTED}")


def _bitmap(text: Any, left: int, top: int, right: int, bottom: int) -> Bitmap:
    """The pixels of a PNG in base64; its box holds the pixels at both of its corners."""
    try:
        content = base64.b64decode(text)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"its mask is no PNG in base64: {error}") from error
    pixels = np.array(decode_image(content, name="of its mask")).astype(bool)
    if pixels.shape != (bottom - top + 1, right - left + 1):
        shape = "x".join(map(str, pixels.shape[::-1]))
        raise DatasetError(f"its mask has {shape} pixels, its box {right - left + 1}x{bottom - top + 1}")
    return Bitmap(pixels, left, top)
