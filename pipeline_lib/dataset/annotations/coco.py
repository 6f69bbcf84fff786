"""COCO (cocodataset.org/#format-data), a file for all images; as CVAT, Label Studio and others export it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations import run_lengths
from pipeline_lib.dataset.annotations.drawing import Bitmap, EdgePolygon, Shape, edge_box
from pipeline_lib.dataset.annotations.outlines import BAD_ENTRY, SHARES, AnnotatedImage, posix, said


def read_coco(path: Path, content: dict[str, Any], images: dict[str, AnnotatedImage]) -> list[str]:
    """Add the images of one file to `images`, by their path, annotated or not; gives what belongs to none of them."""
    problems: list[str] = []
    by_id: dict[Any, AnnotatedImage] = {}
    for where, entry in _entries(path, content, "images"):
        try:
            name = posix(entry["file_name"])
            image = images.setdefault(name, AnnotatedImage(name, str(path)))
            image.says((entry.get("width"), entry.get("height")), where)
            by_id[entry["id"]] = image
        except BAD_ENTRY as error:
            problems.append(f"{where}: {said(error)}")
    names: dict[Any, Any] = {}
    for where, entry in _entries(path, content, "categories"):
        try:
            names[entry["id"]] = entry["name"]
        except BAD_ENTRY as error:
            problems.append(f"{where}: {said(error)}")
    for where, entry in _entries(path, content, "annotations"):
        try:
            image = by_id[entry["image_id"]]
        except BAD_ENTRY:
            image_id = entry.get("image_id", "nothing") if isinstance(entry, dict) else "nothing"
            problems.append(f"{where}: its image_id is {image_id}, and images has no such entry")
            continue
        try:
            category = entry["category_id"]
            if category not in names:
                raise DatasetError(f"its category_id is {category}, and categories has no such entry")
            image.add(names[category], _shapes(entry, image, where), where)
        except BAD_ENTRY as error:
            image.unreadable.append(f"{where}: {said(error)}")
    return problems


def _entries(path: Path, content: dict[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    """(where it stands, the entry), for each entry of a list."""
    for number, entry in enumerate(content[key], start=1):
        name = entry.get("id", f"number {number}") if isinstance(entry, dict) else f"number {number}"
        yield f"{path}, {key} {name}", entry


def _shapes(entry: dict[str, Any], image: AnnotatedImage, where: str) -> list[Shape]:
    """Its run lengths or polygons; the box where it has neither, turned by CVAT's attribute `rotation`."""
    outline = entry.get("segmentation")
    if isinstance(outline, dict):
        pixels = run_lengths.decode(outline)
        image.says(pixels.shape[::-1], where)
        return [Bitmap(pixels, 0, 0)]
    if outline:
        return [_polygon(numbers) for numbers in outline]
    if not entry.get("bbox"):
        raise DatasetError("it has neither a segmentation nor a bbox")
    x, y, width, height = map(float, entry["bbox"])
    if not (width > 0 and height > 0):
        raise DatasetError(f"its bbox is {width} wide and {height} high")
    if max(x, y, width, height) <= 1:  # about its middle, as YOLO has it, it may end beyond 1
        raise DatasetError(f"its bbox has coordinates {SHARES}")
    rotation = (entry.get("attributes") or {}).get("rotation") or 0.0
    return [edge_box(x, y, width, height, degrees=float(rotation))]


def _polygon(numbers: Any) -> EdgePolygon:
    values = [float(number) for number in numbers]
    if len(values) < 6 or len(values) % 2:
        raise DatasetError(f"a polygon of {len(values)} numbers; it takes three points or more, x and y each")
    return EdgePolygon(tuple(zip(values[::2], values[1::2], strict=True)))
