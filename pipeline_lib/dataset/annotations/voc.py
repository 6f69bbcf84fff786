"""Pascal VOC, a file an image: boxes, and polygons where an exporter adds them.

Pascal VOC counts whole pixels from 1 and includes both ends of a box. CVAT (numbers with decimals) and Label Studio
(its name stands in the file) measure from the edge of the image instead, as COCO does.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations.drawing import EdgePolygon, Shape, edge_box
from pipeline_lib.dataset.annotations.outlines import BAD_ENTRY, AnnotatedImage, posix, said

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path, root: ElementTree.Element) -> AnnotatedImage:
    """The outlines of one file, whose root is <annotation>."""
    image = AnnotatedImage(posix((root.findtext("filename") or "").strip() or path.stem), str(path))
    image.says((root.findtext("size/width"), root.findtext("size/height")), str(path))
    is_label_studio = root.findtext("owner/name") == "Label Studio"
    for number, entry in enumerate(root.iter("object"), start=1):
        if entry.findtext("deleted") == "1":
            continue
        where = f"{path}, object {number}"
        try:
            image.add(entry.findtext("name"), [_shape(entry, counts_from_one=not is_label_studio)], where)
        except BAD_ENTRY as error:
            image.unreadable.append(f"{where}: {said(error)}")
    if (root.findtext("segmented") or "0").strip() != "0" and root.find("object/polygon") is None:
        image.unreadable.append(
            f"{path}: its outlines lie in pictures beside it (segmented is not 0), which are not read; export COCO"
        )
    return image


def _shape(entry: ElementTree.Element, *, counts_from_one: bool) -> Shape:
    polygon = entry.find("polygon")
    if polygon is not None:
        return _polygon(polygon)
    texts = [entry.findtext(f"bndbox/{side}") for side in _SIDES]
    if None in texts:
        raise DatasetError("it has neither a box nor a polygon")
    left, top, right, bottom = (float(str(text)) for text in texts)
    if counts_from_one and not any("." in str(text) for text in texts):
        left, top = left - 1, top - 1
    if not (right > left and bottom > top):
        raise DatasetError(f"its box ends at {right:g}, {bottom:g}, not after its start")
    rotation = next(
        (a.findtext("value") for a in entry.iterfind("attributes/attribute") if a.findtext("name") == "rotation"), None
    )
    return edge_box(left, top, right - left, bottom - top, degrees=float(rotation or 0.0))


def _polygon(polygon: ElementTree.Element) -> EdgePolygon:
    """x1, y1, x2, y2... as Roboflow writes them, or points (pt, point) with x and y, as labelme's forerunner."""
    points = [(float(str(p.findtext("x"))), float(str(p.findtext("y")))) for p in polygon if p.tag in {"pt", "point"}]
    if not points:
        values = {child.tag: float(str(child.text)) for child in polygon if re.fullmatch(r"[xy][0-9]+", child.tag)}
        count = len(values) // 2
        points = [(values[f"x{number}"], values[f"y{number}"]) for number in range(1, count + 1)]
    if len(points) < 3:
        raise DatasetError(f"a polygon of {len(points)} points; it takes three or more")
    return EdgePolygon(tuple(points))
