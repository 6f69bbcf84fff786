"""Drawn annotations behind one interface: labelme JSON, COCO JSON and Pascal VOC boxes become named outlines by image.

labelme and Pascal VOC have a file an image, found by its stem; COCO has one file for all. Coordinates are pixels of the
image, x to the right and y down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

from data_contracts.errors import DatasetError

CIRCLE_POINTS = 64


@dataclass(frozen=True)
class Outline:
    """One annotated defect: one or more polygons, each a list of (x, y)."""

    name: str
    polygons: tuple[tuple[tuple[float, float], ...], ...]

    def mask(self, width: int, height: int) -> np.ndarray:
        """bool (height, width): inside a polygon or on its edge; what lies outside the image is cut off."""
        canvas = Image.new("L", (width, height))
        for polygon in self.polygons:
            ImageDraw.Draw(canvas).polygon(polygon, fill=1, outline=1)
        return np.array(canvas, dtype=bool)


@dataclass
class Annotations:
    """Outlines by the stem of their image, and what could not be used, for people."""

    by_stem: dict[str, list[Outline]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, stem: str, name: Any, polygons: Sequence[Sequence[tuple[float, float]]], where: str) -> None:
        """Add one outline; one without a name, an area or finite numbers is listed instead."""
        kept = tuple(tuple(polygon) for polygon in polygons if len(polygon) >= 3)
        numbers = [number for polygon in kept for point in polygon for number in point]
        if not isinstance(name, str) or not name.strip():
            self.problems.append(f"{where}: an annotation without a name")
        elif not kept or not all(math.isfinite(number) for number in numbers):
            self.problems.append(f"{where}: {name} has no usable outline")
        else:
            self.by_stem.setdefault(stem, []).append(Outline(name.strip(), kept))


def read_annotations(path: Path | str) -> Annotations:
    """Annotations of a COCO file, of one labelme or VOC file, or of all .json and .xml files in a directory.

    Raises DatasetError for a path that is not there or holds none, a file that is no JSON or XML, and one in another
    format, naming the file.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in {".json", ".xml"})
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise DatasetError(
            f"no annotations at {path}: give a COCO .json, or a directory of labelme .json or Pascal VOC .xml"
        )
    found = Annotations()
    for file in files:
        (_read_voc if file.suffix.lower() == ".xml" else _read_json)(file, found)
    return found


def _read_json(path: Path, found: Annotations) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}") from error
    try:
        if isinstance(content, dict) and "shapes" in content:
            _labelme(path, content, found)
        elif isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content):
            _coco(path, content, found)
        else:
            raise DatasetError(f"{path} is neither labelme (shapes) nor COCO (images, annotations, categories)")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"{path} is not as its format says: {type(error).__name__} {error}") from error


def _labelme(path: Path, content: dict[str, Any], found: Annotations) -> None:
    """labelme (github.com/wkentaro/labelme): polygons, rectangles (two corners), circles (center, rim)."""
    image = str(content.get("imagePath") or path.stem)
    stem = Path(image.replace("\\", "/")).stem
    for shape in content["shapes"]:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        kind = shape.get("shape_type") or "polygon"
        match kind, points:
            case "polygon", _:
                polygon = points
            case "rectangle", [(x0, y0), (x1, y1)]:
                polygon = _box(x0, y0, x1, y1)
            case "circle", [center, rim]:
                polygon = _circle(center, math.dist(center, rim))
            case _:
                found.problems.append(f"{path}: a {kind} has no area; draw polygons, rectangles or circles")
                continue
        found.add(stem, shape.get("label"), [polygon], str(path))


def _coco(path: Path, content: dict[str, Any], found: Annotations) -> None:
    """COCO (cocodataset.org/#format-data): polygons, else the box; run lengths are listed as a problem."""
    stems = {image["id"]: Path(str(image["file_name"]).replace("\\", "/")).stem for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    for annotation in content["annotations"]:
        where = f"{path}, annotation {annotation.get('id', '?')}"
        if annotation["image_id"] not in stems:
            found.problems.append(f"{where}: there is no image {annotation['image_id']}")
            continue
        outline = annotation.get("segmentation")
        if isinstance(outline, dict):
            found.problems.append(f"{where}: run lengths are not read; export polygons")
            continue
        if outline:
            polygons = [list(zip(map(float, p[::2]), map(float, p[1::2]), strict=True)) for p in outline]
        else:
            x, y, width, height = map(float, annotation["bbox"])
            polygons = [_box(x, y, x + width, y + height)]
        found.add(stems[annotation["image_id"]], names.get(annotation["category_id"]), polygons, where)


def _read_voc(path: Path, found: Annotations) -> None:
    """Pascal VOC: boxes of whole pixels, counted from 1, both ends included."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DatasetError(f"{path} declares a document type or entities, which annotations have no use for")
        root = ElementTree.fromstring(text)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DatasetError(f"{path} cannot be read as XML: {error}") from error
    if root.tag != "annotation":
        raise DatasetError(f"{path} is not Pascal VOC: its root is {root.tag}, not annotation")
    stem = Path(root.findtext("filename") or path.stem).stem
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        texts = [None if box is None else box.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(str(text)) for text in texts)
        except ValueError:
            found.problems.append(f"{path}: an object without a box")
            continue
        found.add(stem, entry.findtext("name"), [_box(left - 1, top - 1, right - 1, bottom - 1)], str(path))


def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _circle(center: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False).tolist()
    return [(center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)) for angle in angles]
