"""The category that is made of folders of images and drawn annotations."""

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
from pipeline_lib.dataset.annotations.reading import read_annotations
from pipeline_lib.dataset.ground_truth import category_defects, read_mask_channels
from pipeline_lib.dataset.importing import ImportedCategory, import_category
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.validation import validate_dataset

BOX = [[10.0, 5.0], [19.0, 5.0], [19.0, 14.0], [10.0, 14.0]]


def labelme(name: str, shapes: list[dict[str, Any]]) -> str:
    return json.dumps({"version": "5.4.1", "imagePath": f"..\\nok\\{name}.png", "shapes": shapes})


def coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> str:
    categories = [{"id": 1, "name": "dent"}, {"id": 2, "name": "pit"}]
    entries = [{"id": n, "category_id": 1, **annotation} for n, annotation in enumerate(annotations, start=1)]
    return json.dumps({"images": images, "categories": categories, "annotations": entries})


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


def test_folders_and_annotations_become_a_category_that_validates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    with pytest.raises(SystemExit) as stop:
        main(["dataset", "validate", str(root)])
    assert not stop.value.code
    assert "0 errors" in capsys.readouterr().out
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


def imported(root: Path, images: dict[str, Image.Image], files: dict[str, str], **options: Any) -> ImportedCategory:
    """Import these defective images, and a good one, with these files of annotations."""
    good, defective, drawn = root / "ok", root / "nok", root / "drawn"
    for directory in (good, defective, drawn):
        directory.mkdir(parents=True)
    Image.new("L", (32, 24)).save(good / "g.png")
    for name, image in images.items():
        image.save(defective / name, **options)
    for name, content in files.items():
        (drawn / name).write_text(content)
    return import_category(good, defective, read_annotations(drawn), root / "data" / "part")


def masks(root: Path) -> dict[str, np.ndarray]:
    """Folder/stem/number -> mask."""
    below = root / "data" / "part" / "ground_truth"
    return {
        path.relative_to(below).with_suffix("").as_posix(): np.asarray(Image.open(path)) > 0
        for path in below.rglob("*.png")
    }


def test_an_image_is_never_marked_in_part(tmp_path: Path) -> None:
    dent = {"label": "dent", "points": BOX, "shape_type": "polygon"}
    star = {"label": "pit", "points": [[1, 1]], "shape_type": "star"}
    pictures = {name: Image.new("L", (32, 24)) for name in ("b0.png", "b1.png", "b2.png")}
    files = {"b0.json": labelme("b0", [dent, star]), "b1.json": labelme("b1", [dent])}
    result = imported(tmp_path, pictures, {**files, "b2.json": labelme("b7", [dent])})
    assert dict(result.images) == {"train/good": 1, "test/unannotated": 2, "test/dent": 1}
    assert list(masks(tmp_path)) == ["dent/b1/000"]
    first, second = result.problems
    assert "b0.png is not marked: " in first
    assert "b0.json, shape 2: a star of 1 points is not read" in first
    assert "b2.png is not marked: " in second
    assert "inside it says ../nok/b7.png" in second


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_an_outline_is_turned_and_scaled_with_its_image(tmp_path: Path, ending: str) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    sizes = {"turned": (24, 32), "stored": (32, 24), "halved": (48, 64), "cut": (24, 30), "shares": (24, 32)}
    images = [
        {"id": n, "file_name": f"{name}.{ending}", "width": size[0], "height": size[1]}
        for n, (name, size) in enumerate(sizes.items())
    ]
    boxes = {"turned": [2, 20, 5, 9], "stored": [20, 17, 9, 5], "halved": [4, 40, 10, 18], "cut": [2, 20, 5, 9]}
    boxes["shares"] = [0.1, 0.2, 0.3, 0.4]
    drawn = coco(images, [{"image_id": n, "bbox": boxes[name]} for n, name in enumerate(sizes)])
    pictures = {f"{name}.{ending}": Image.new("L", (32, 24)) for name in sizes}
    result = imported(tmp_path, pictures, {"all.json": drawn}, exif=tag)
    found = masks(tmp_path)
    expected = np.zeros((32, 24), dtype=bool)
    expected[20:29, 2:7] = True
    assert set(found) == {"dent/turned/000", "dent/stored/000", "dent/halved/000"}
    for mask in found.values():
        np.testing.assert_array_equal(mask, expected)
    cut, shares = result.problems
    assert f"cut.{ending} is not marked: " in cut
    assert "was drawn on a picture of 24x30 pixels, the image has 24x32, turned by its orientation tag 6" in cut
    assert "annotations 5: its bbox has coordinates from 0 to 1 alone" in shares


def test_images_of_one_name_in_two_directories_are_told_apart_or_not_marked(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": name} for n, name in enumerate(("cam1/000.jpg", "cam2/000.jpg", "001.jpg"))]
    boxes = [{"image_id": n, "bbox": [n, 2, 3, 4]} for n in range(3)]
    pictures = {name: Image.new("L", (32, 24)) for name in ("000.jpg", "001.jpg")}
    result = imported(tmp_path, pictures, {"all.json": coco(images, boxes)})
    assert list(masks(tmp_path)) == ["dent/001/000"]
    (problem,) = result.problems
    assert "000.jpg is not marked: 2 annotated images may be it, cam1/000.jpg, cam2/000.jpg in " in problem


def test_annotations_of_other_images_alone_are_an_error(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "line/x1.png"}, {"id": 2, "file_name": "b1.png"}]
    drawn = coco(images, [{"image_id": 1, "bbox": [1, 2, 3, 4]}])
    message = r"no annotation is of an image in .*nok, which holds b1: annotated are line/x1\.png\. Names are compared"
    with pytest.raises(DatasetError, match=message):
        imported(tmp_path, {"b1.png": Image.new("L", (32, 24))}, {"all.json": drawn})
    assert not (tmp_path / "data" / "part").exists()
    drawn = coco(images, [{"image_id": 9, "bbox": [1, 2, 3, 4]}])
    with pytest.raises(DatasetError, match="annotations 1: its image_id is 9"):
        imported(tmp_path / "ids", {"b1.png": Image.new("L", (32, 24))}, {"all.json": drawn})


@pytest.mark.parametrize(
    "folders",
    [
        {"划痕": "划痕", "凹陷": "凹陷"},
        {"царапина": "царапина", "вмятина": "вмятина"},
        {"Bru\u0308che": "Br\u00fcche", "Br\u00fcche": "Br\u00fcche"},
        {"a/b: c": "a_b_c", "..": "defect", "CON": "CON_defect", "nul.x": "nul.x_defect"},
        {"Good": "Good_defect", "recycler": "recycler_defect"},
        {"痕" * 100: "痕" * 66},
    ],
)
def test_defect_names_of_any_script_become_folders(tmp_path: Path, folders: dict[str, str]) -> None:
    pictures, files = {}, {}
    for number, label in enumerate(folders):
        pictures[f"b{number}.png"] = Image.new("L", (32, 24))
        files[f"b{number}.json"] = labelme(f"b{number}", [{"label": label, "points": BOX}])
    result = imported(tmp_path, pictures, files)
    assert not result.problems
    assert set(index_dataset(tmp_path / "data", require_train="none").path) >= {
        f"part/test/{folder}/b{number}.png" for number, folder in enumerate(folders.values())
    }


def test_defect_names_of_one_folder_are_an_error_that_names_them(tmp_path: Path) -> None:
    shapes = [{"label": label, "points": BOX} for label in ("dent?", "dent!")]
    with pytest.raises(DatasetError, match=r"the defect names 'dent!', 'dent\?' give one folder, 'dent'"):
        imported(tmp_path, {"b0.png": Image.new("L", (32, 24))}, {"b0.json": labelme("b0", shapes)})
