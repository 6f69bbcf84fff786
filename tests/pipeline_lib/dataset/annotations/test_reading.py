"""Files of annotations in three formats, and what of them is listed instead of used."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations.reading import read_annotations

BOX = [[10.0, 5.0], [19.0, 5.0], [19.0, 14.0], [10.0, 14.0]]
EDGES = [[10.0, 5.0], [20.0, 5.0], [20.0, 15.0], [10.0, 15.0]]
BNDBOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
PICTURE = io.BytesIO()
Image.new("1", (2, 2), 1).save(PICTURE, "PNG")
PIXELS = base64.b64encode(PICTURE.getvalue()).decode()


def labelme(*shapes: dict[str, Any], **head: Any) -> str:
    return json.dumps({"version": "5.4.1", "imagePath": "..\\nok\\b1.png", "shapes": shapes, **head})


def coco(*annotations: Any, **more: Any) -> str:
    head = {"images": [{"id": 1, "file_name": "nok/b1.png"}], "categories": [{"id": 3, "name": "dent"}]}
    ids = {"image_id": 1, "category_id": 3}
    entries = [{"id": 7 + n, **ids, **a} if isinstance(a, dict) else a for n, a in enumerate(annotations)]
    return json.dumps({**head, "annotations": entries, **more})


def voc(*objects: str, more: str = "") -> str:
    entries = "".join(f"<object><name>dent</name>{inner}</object>" for inner in objects)
    return f"<annotation><filename>C:\\nok\\b1.png</filename>{more}{entries}</annotation>"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b1.json", labelme({"label": "dent", "points": BOX, "shape_type": "polygon"})),
        ("b1.json", labelme({"label": "dent", "points": BOX, "shape_type": "rectangle"})),
        ("b1.json", labelme({"label": "dent", "points": [BOX[2], BOX[0]], "shape_type": "rectangle"})),
        ("all.json", coco({"segmentation": [[value for point in EDGES for value in point]]})),
        ("all.json", coco({"bbox": [10, 5, 10, 10]})),
        ("b1.xml", voc(BNDBOX.format(11, 6, 20, 15))),
        ("b1.xml", voc(BNDBOX.format("10.0", "5.0", "20.0", "15.0"))),
        ("b1.xml", voc(BNDBOX.format(10, 5, 20, 15), more="<owner><name>Label Studio</name></owner>")),
        ("b1.xml", voc("<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in EDGES) + "</polygon>")),
        (
            "b1.xml",
            voc(
                "<polygon>"
                + "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(EDGES, 1))
                + "</polygon>"
            ),
        ),
    ],
)
def test_every_format_gives_the_same_mask(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (image,) = read_annotations(tmp_path).images
    (outline,) = image.outlines
    expected = np.zeros((24, 32), dtype=bool)
    expected[5:15, 10:20] = True
    assert (outline.name, image.unreadable) == ("dent", [])
    np.testing.assert_array_equal(outline.mask(32, 24), expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "b1.json",
            labelme({"label": "x", "points": [[1, 1], [5, 5]], "shape_type": "line"}),
            "shape 1: a line has no",
        ),
        (
            "b1.json",
            labelme({"label": "x", "points": [[1, 1]], "shape_type": "star"}),
            "a star of 1 points is not read",
        ),
        ("b1.json", labelme({"label": "x", "points": [[1, 1], [2]]}), "shape 1: it is not as its format says"),
        ("b1.json", labelme({"label": "x", "points": []}), "a polygon of 0 points"),
        ("b1.json", labelme({"label": "", "points": BOX}), "without a name"),
        ("b1.json", labelme({"label": "x", "points": [[float("nan"), 1], [2, 2], [3, 1]]}), "x has no usable outline"),
        ("b1.json", labelme({"label": "x", "points": [[0.1, 0.2], [0.5, 0.2], [0.4, 0.9]]}), "from 0 to 1 alone"),
        ("b1.json", labelme({"label": "x", "points": [[1, 1], [1e9, 2], [3, 1]]}), "beyond"),
        ("b1.json", labelme({"label": "x", "points": BOX[:2], "shape_type": "mask", "mask": "a"}), "no PNG in base64"),
        (
            "b1.json",
            labelme({"label": "x", "points": [[0, 0], [2, 1]], "shape_type": "mask", "mask": PIXELS}),
            "has 2x2 pixels, its box 3x2",
        ),
        (
            "b1.json",
            labelme({"label": "x", "points": BOX}, imagePath="b9.png"),
            "its name is that of b1, but inside it says b9.png",
        ),
        ("all.json", coco({"segmentation": [[]], "bbox": [1, 2, 3, 4]}), "annotations 7: a polygon of 0 numbers"),
        ("all.json", coco({"segmentation": {"counts": [3, 4], "size": [2, 4]}}), r"add up to 7, not 2 \* 4 pixels"),
        ("all.json", coco({"segmentation": {"counts": "3o", "size": [2, 4]}}), "annotations 7: .*run lengths"),
        ("all.json", coco({"bbox": [0.1, 0.2, 0.3, 0.4]}), "annotations 7: its bbox has coordinates from 0 to 1"),
        ("yolo.json", coco({"bbox": [0.4, 0.4, 0.8, 0.8]}), "annotations 7: its bbox has coordinates from 0 to 1"),
        ("b1.json", labelme({"label": "x", "points": [[-0.01, 0], [1.0000001, 0], [0.4, 1]]}), "from 0 to 1 alone"),
        ("all.json", coco({"bbox": [1, 2, 0, 4]}), "its bbox is 0.0 wide and 4.0 high"),
        ("all.json", coco({"segmentation": []}), "neither a segmentation nor a bbox"),
        ("all.json", coco({"bbox": [1, 2, 3, 4], "category_id": 9}), "its category_id is 9"),
        ("all.json", coco({"bbox": "wide"}), "annotations 7: it is not as its format says"),
        ("b1.xml", voc(""), "object 1: it has neither a box nor a polygon"),
        ("b1.xml", voc(BNDBOX.format(9, 9, "wide", 9)), "object 1: it is not as its format says"),
        ("b1.xml", voc(BNDBOX.format(9, 9, 5, 12)), "ends at 5, 12"),
        ("b1.xml", voc(BNDBOX.format("9", "9", "20", "12"), more="<segmented>1</segmented>"), "segmented is not 0"),
    ],
)
def test_what_cannot_be_used_is_listed_with_its_image(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    (image,) = read_annotations(tmp_path).images
    (problem,) = image.unreadable
    assert image.path in {"b1", "nok/b1.png", "C:/nok/b1.png", "../nok/b1.png"}
    assert problem.startswith(str(tmp_path / name))
    assert re.search(message, problem), problem


def test_one_bad_entry_of_coco_leaves_the_others(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "nok/b1.png"},
        {"id": 2, "file_name": "b2.png", "width": 0, "height": 0},
        {"id": 5},
    ]
    good = {"image_id": 2, "bbox": [1, 2, 3, 4]}
    entries = ({"bbox": [1]}, good, {"image_id": 9}, "text", {"image_id": [1]})
    (tmp_path / "all.json").write_text(coco(*entries, images=images))
    found = read_annotations(tmp_path / "all.json")
    first, second = found.images
    assert (len(first.unreadable), len(second.outlines), second.size) == (1, 1, None)
    assert [problem.split(", ", 1)[1].split(":")[0] for problem in found.problems] == [
        "images 5", "annotations 9", "annotations number 4", "annotations 11",
    ]  # fmt: skip


def test_two_sizes_of_one_picture_cannot_both_be_true(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "b1.png", "width": 32, "height": 24}]
    rle = {"segmentation": {"counts": [2, 2, 4], "size": [2, 4]}}
    (tmp_path / "all.json").write_text(coco(rle, images=images))
    (image,) = read_annotations(tmp_path).images
    assert "annotations 7: gives 4x2 pixels, another entry 32x24" in image.unreadable[0]


def test_a_file_in_another_encoding_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    dent = {"label": "Kratzer \u00e4", "points": BOX}
    text = json.dumps({"imagePath": "b1.png", "shapes": [dent]}, ensure_ascii=False)
    (tmp_path / "b1.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "b2.json").write_bytes(text.replace("b1", "b2").encode("utf-16"))  # has a mark that names it
    xml = voc(BNDBOX.format(1, 1, 9, 9)).replace("dent", "\u7f3a\u9677").replace("b1", "b3")
    (tmp_path / "b3.xml").write_bytes(f'<?xml version="1.0" encoding="gbk"?>{xml}'.encode("gbk"))
    first, second, third = read_annotations(tmp_path).images
    assert (first.path, first.outlines) == ("b1", [])
    assert "cannot be read as JSON in UTF-8" in first.unreadable[0]
    assert [second.outlines[0].name, third.outlines[0].name] == ["Kratzer \u00e4", "\u7f3a\u9677"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[]", "of another format, it is other JSON; accepted are labelme"),
        ("a.json", '{"shapes": 3}', "not as its format says"),
        ("a.xml", "<a>", "cannot be read as XML"),
        ("a.xml", "<annotations/>", "another format, its root is annotations"),
        ("a.xml", "<!DOCTYPE x><annotation/>", "document type"),
        ("a.txt", "", "no annotations at"),
    ],
)
def test_no_readable_file_is_an_error_that_names_it(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_annotations(tmp_path)
