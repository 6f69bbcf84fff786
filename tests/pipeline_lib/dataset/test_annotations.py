"""Drawn annotations in three formats, and the category that is made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import DatasetError
from flows.cli import main
from pipeline_lib.dataset.annotations import Outline, read_annotations
from pipeline_lib.dataset.ground_truth import category_defects, read_mask_channels
from pipeline_lib.dataset.importing import import_category
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.validation import validate_dataset

BOX = [[10.0, 5.0], [19.0, 5.0], [19.0, 14.0], [10.0, 14.0]]
VOC = """<annotation><filename>b1.png</filename><object><name>dent</name>
<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object>
<object><name>boxless</name></object></annotation>"""


def labelme(name: str, shapes: list[dict[str, Any]]) -> str:
    return json.dumps({"version": "5.4.1", "imagePath": f"..\\nok\\{name}.png", "shapes": shapes})


def coco(**annotation: Any) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "nok/b1.png"}],
            "categories": [{"id": 3, "name": "dent"}],
            "annotations": [{"id": 7, "image_id": 1, "category_id": 3, **annotation}],
        }
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b1.json", labelme("b1", [{"label": "dent", "points": BOX, "shape_type": "polygon"}])),
        ("b1.json", labelme("b1", [{"label": "dent", "points": [BOX[0], BOX[2]], "shape_type": "rectangle"}])),
        ("all.json", coco(segmentation=[[value for point in BOX for value in point]])),
        ("all.json", coco(segmentation=[], bbox=[10, 5, 9, 9])),
        ("b1.xml", VOC),
    ],
)
def test_every_format_gives_the_same_mask(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    found = read_annotations(tmp_path)
    (outline,) = found.by_stem["b1"]
    expected = np.zeros((24, 32), dtype=bool)
    expected[5:15, 10:20] = True
    assert outline.name == "dent"
    np.testing.assert_array_equal(outline.mask(32, 24), expected)


def test_a_circle_has_its_area_and_what_lies_outside_is_cut_off(tmp_path: Path) -> None:
    shape = {"label": "hole", "points": [[50, 50], [50, 80]], "shape_type": "circle"}
    (tmp_path / "c.json").write_text(labelme("c", [shape]))
    (outline,) = read_annotations(tmp_path / "c.json").by_stem["c"]
    assert outline.mask(100, 100).sum() == pytest.approx(np.pi * 30**2, rel=0.05)
    half = Outline("x", (((-10.0, 0.0), (4.0, 0.0), (4.0, 9.0), (-10.0, 9.0)),)).mask(10, 10)
    assert half[:, :5].all()
    assert not half[:, 5:].any()


def test_what_cannot_be_used_is_listed(tmp_path: Path) -> None:
    shapes: list[dict[str, Any]] = [
        {"label": "scratch", "points": [[1, 1], [5, 5]], "shape_type": "line"},
        {"label": "", "points": BOX, "shape_type": "polygon"},
        {"label": "nan", "points": [[float("nan"), 1], [2, 2], [3, 1]], "shape_type": "polygon"},
    ]
    (tmp_path / "a.json").write_text(labelme("a", shapes))
    (tmp_path / "b.xml").write_text(VOC)
    (tmp_path / "c.json").write_text(coco(segmentation={"counts": "x", "size": [1, 1]}))
    problems = "\n".join(read_annotations(tmp_path).problems)
    for text in ("a line has no area", "without a name", "nan has no usable outline", "without a box", "run lengths"):
        assert text in problems


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "{}", "neither labelme"),
        ("a.json", '{"shapes": [{"label": "x"}]}', "not as its format says"),
        ("a.xml", "<a>", "cannot be read as XML"),
        ("a.xml", "<a/>", "not Pascal VOC"),
        ("a.xml", "<!DOCTYPE x><annotation/>", "document type"),
        ("a.txt", "", "no annotations at"),
    ],
)
def test_another_format_is_an_error_that_names_the_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_annotations(tmp_path)


def folders(root: Path) -> tuple[Path, Path, Path]:
    rng = np.random.default_rng(2)
    good, defective, drawn = root / "ok", root / "nok", root / "labelme"
    for directory in (good, defective, drawn):
        directory.mkdir()
    for number in range(10):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(good / f"g{number}.png")
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(defective / f"b{number}.png")
    (defective / "broken.png").write_bytes(b"x")
    dent = {"label": "dent", "points": BOX, "shape_type": "polygon"}
    good_name = {"label": "good", "points": [[0, 0], [3, 0], [3, 3]], "shape_type": "polygon"}
    (drawn / "b0.json").write_text(labelme("b0", [dent]))
    (drawn / "b1.json").write_text(labelme("b1", [dent, dent]))
    (drawn / "b2.json").write_text(labelme("b2", [dent, good_name]))
    (drawn / "gone.json").write_text(labelme("gone", [dent]))
    return good, defective, drawn


def test_folders_and_annotations_become_a_category_that_validates(tmp_path: Path) -> None:
    good, defective, drawn = folders(tmp_path)
    (good / "later").mkdir()
    for name in ("g10.jfif", ".g11.png", "later/g12.png"):
        shutil.copyfile(good / "g0.png", good / name)
    result = import_category(good, defective, read_annotations(drawn), tmp_path / "data" / "bracket")
    (line,) = (problem for problem in result.problems if "left out" in problem)
    assert all(part in line for part in ("1 unsupported ending (.jfif)", "1 hidden", "1 in a deeper directory", "ok: "))
    assert dict(result.images) == {
        "train/good": 8, "test/good": 2, "test/dent": 2, "test/multiple": 1, "test/unannotated": 1,
    }  # fmt: skip
    assert any("broken.png" in problem for problem in result.problems)
    assert any("1 annotated images are not in" in problem for problem in result.problems)
    root = tmp_path / "data"
    index = index_dataset(root)
    findings = validate_dataset(index, root).findings
    assert not [finding for finding in findings if finding.severity == "error"]
    assert ["b3" in finding.path for finding in findings if finding.code == "unannotated"] == [True]
    defects = category_defects(root, "bracket")
    channels = read_mask_channels(root, "bracket", "multiple", "b2", width=32, height=24, defects=defects)
    assert {channel.defect_name for channel in channels} == {"dent", "good"}
    assert [c.saturation_area_px for c in channels if c.defect_name == "dent"] == [100]
    with pytest.raises(DatasetError, match="is there already"):
        import_category(good, None, read_annotations(drawn), tmp_path / "data" / "bracket")


def test_the_commands_import_and_give_normalization_statistics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, defective, drawn = folders(tmp_path)
    arguments = ["--good", good, "--defective", defective, "--annotations", drawn, "--category", "bracket"]

    def call(*words: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        return int(stop.value.code or 0)

    assert call("dataset", "import", *arguments, "--out", tmp_path / "data", "--json") == 0
    assert json.loads(capsys.readouterr().out)["masks"] == {"dent": 4, "good": 1}
    assert call("dataset", "stats", tmp_path / "data", "--normalization", "--json") == 0
    mean = json.loads(capsys.readouterr().out)["bracket"]["mean"]
    assert mean == pytest.approx([0.5, 0.5, 0.5], abs=0.05)
    assert call("dataset", "import", "--good", good, "--category", "../x", "--out", tmp_path) == 1
    assert "--category is '../x'" in capsys.readouterr().err
