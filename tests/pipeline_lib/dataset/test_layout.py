"""Public data sets in their own layouts, found out from what lies there and read by their own rules."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_contracts.config import Layout
from data_contracts.errors import DatasetError
from pipeline_lib.dataset.ground_truth import read_mask_channels
from pipeline_lib.dataset.index import dataset_fingerprint, index_dataset
from pipeline_lib.dataset.layout import detect_layout, resolved_layout
from pipeline_lib.dataset.validation import validate_dataset
from tests.dataset_fixtures import (
    draw_defect,
    tiny_pixels,
    write_image,
    write_tiny_autovi,
    write_tiny_folder,
    write_tiny_mvtec,
)


def pictures(directory: Path, count: int, suffix: str = ".png", *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(count):
        write_image(directory / f"{number:03d}{suffix}", tiny_pixels(rng, (32, 24)))


def masks(directory: Path, names: list[str], *, value: int = 255) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        mask = draw_defect(np.zeros((24, 32, 3), np.uint8), rng)
        write_image(directory / name, mask.astype(np.uint8) * np.uint8(value))


def loco(root: Path) -> Path:
    """MVTec LOCO AD: a category of two kinds of anomalies, masks in folders and, of one image, as a file."""
    write_tiny_autovi(root, categories=("juice_bottle",), train=10, good=3, defective=1)
    folder = root / "juice_bottle/ground_truth/scratch"
    (folder / "0000/0000.png").rename(folder / "0000.png")
    shutil.rmtree(folder / "0000")
    pictures(root / "juice_bottle/validation/good", 2, seed=5)
    return root


def mvtec_ad2(root: Path) -> Path:
    """MVTec AD 2: the public half of the test set has masks, the private ones none."""
    category = root / "vial"
    pictures(category / "train/good", 10, seed=1)
    pictures(category / "validation/good", 2, seed=2)
    pictures(category / "test_public/good", 3, seed=3)
    pictures(category / "test_public/bad", 2, seed=4)
    pictures(category / "test_private", 2, seed=5)
    masks(category / "test_public/ground_truth/bad", ["000_mask.png", "001_mask.png"])
    return root


def visa(root: Path) -> Path:
    """VisA: photographs as .JPG, masks of small labels as PNG, and a table that divides the normal ones."""
    category = root / "candle"
    pictures(category / "Data/Images/Normal", 14, ".JPG", seed=6)
    pictures(category / "Data/Images/Anomaly", 2, ".JPG", seed=7)
    masks(category / "Data/Masks/Anomaly", ["000.png", "001.png"], value=3)
    rows = [["object", "split", "label", "image", "mask"]]
    for number in range(13):
        split = "test" if number in (1, 4, 6) else "train"
        rows.append(["candle", split, "normal", f"candle/Data/Images/Normal/{number:03d}.JPG", ""])
    rows.append(["candle", "test", "anomaly", "candle/Data/Images/Anomaly/000.JPG", "candle/Data/Masks/Anomaly/0.png"])
    (root / "split_csv").mkdir()
    with (root / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def counts(index: pd.DataFrame) -> dict[str, int]:
    return dict((index["split"] + "/" + index["label"]).value_counts())


@pytest.mark.parametrize(
    ("write", "layout", "shown_by", "expected"),
    [
        (loco, "autovi", "juice_bottle/defects_config.json",
         {"train/good": 10, "test/good": 3, "test/scratch": 1, "test/missing": 1}),
        (mvtec_ad2, "mvtec_ad2", "vial/test_public", {"train/good": 10, "test/good": 3, "test/bad": 2}),
        (visa, "visa", "candle/Data/Images", {"train/good": 10, "test/good": 3, "test/Anomaly": 2}),
        (lambda root: write_tiny_mvtec(root, train=10), "mvtec", "bottle/ground_truth/broken/000_mask.png",
         {"train/good": 10, "test/good": 4, "test/broken": 3}),
        (lambda root: write_tiny_folder(root / "part", good=13), "folder", "part/good",
         {"train/good": 11, "test/good": 2, "test/defective": 3}),
    ],
)  # fmt: skip
def test_the_layout_is_found_and_read(
    tmp_path: Path, write: Callable[[Path], Path], layout: Layout, shown_by: str, expected: dict[str, int]
) -> None:
    write(tmp_path)
    assert detect_layout(tmp_path) == (layout, shown_by)
    index = index_dataset(tmp_path, layout=layout)
    assert counts(index) == expected
    findings = validate_dataset(index, tmp_path, layout=layout).findings
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert {finding.code for finding in findings} <= {"thin_class", "aspect_ratio", "count_differs"}
    if layout != "folder":
        assert (index.loc[index.label_index == 1, "n_mask_channels"] > 0).all()


def test_masks_are_those_of_the_layout(tmp_path: Path) -> None:
    size = {"width": 32, "height": 24}
    assert len(read_mask_channels(visa(tmp_path / "visa"), "candle", "Anomaly", "001", layout="visa", **size)) == 1
    ad2 = mvtec_ad2(tmp_path / "ad2")
    (channel,) = read_mask_channels(ad2, "vial", "bad", "001", layout="mvtec_ad2", **size)
    assert channel.defect_name == "bad"
    missing = ad2 / "vial/test_public/ground_truth/bad/001_mask.png"
    missing.rename(missing.with_name("007_mask.png"))
    index = index_dataset(ad2, layout="mvtec_ad2")
    found = {(f.severity, f.code, f.path) for f in validate_dataset(index, ad2, layout="mvtec_ad2").findings}
    assert {f for f in found if f[0] != "note"} - {("warning", "aspect_ratio", "")} == {
        ("error", "missing_mask", "vial/test_public/bad/001.png"),
        ("warning", "orphaned_mask", "vial/test_public/ground_truth/bad/007_mask.png"),
    }


def test_what_visas_table_does_not_list_is_left_out_and_without_it_the_last_fifth_is_tested(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    visa(tmp_path)
    before = dataset_fingerprint(tmp_path, layout="visa")
    index_dataset(tmp_path, layout="visa")
    assert "1 not listed in split_csv/1cls.csv" in caplog.text
    table = tmp_path / "split_csv/1cls.csv"
    table.write_text(table.read_text().replace("train", "test", 1))
    assert dataset_fingerprint(tmp_path, layout="visa") != before
    table.write_text("image,split\n000.JPG,train\n")
    with pytest.raises(DatasetError, match="cannot be read as VisA's table with the columns object, split and image"):
        index_dataset(tmp_path, layout="visa")
    table.unlink()
    assert counts(index_dataset(tmp_path, layout="visa")) == {"train/good": 12, "test/good": 2, "test/Anomaly": 2}


def test_images_that_a_layout_has_no_use_for_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index_dataset(mvtec_ad2(tmp_path), layout="mvtec_ad2")
    assert "2 outside the folders of the layout" in caplog.text


@pytest.mark.parametrize(
    ("places", "ignored", "kept"),
    [
        (("good", "train/good"), "good", "train/good or test/good"),
        (("good", "test/good"), "test/good", "good"),
        (("good", "train/good", "test/good"), "good", "train/good or test/good"),
        (("Data/Images/Normal", "train/good"), "train/good", "Data/Images/Normal"),
        (("Data/Images/Normal", "good"), "good", "Data/Images/Normal"),
        (("test/good", "test_public/good", "train/good"), "test/good", "train/good or test_public/good"),
    ],
)
def test_normal_images_in_the_folders_of_two_layouts_are_an_error_that_names_both(
    tmp_path: Path, places: tuple[str, ...], ignored: str, kept: str
) -> None:
    for number, place in enumerate(places):
        pictures(tmp_path / "clip" / place, 2 + number, seed=number)
    told = " and in ".join(f"{place} ({2 + places.index(place)} images)" for place in sorted(places))
    with pytest.raises(DatasetError) as refused:
        index_dataset(tmp_path, layout=detect_layout(tmp_path)[0])
    directory = tmp_path / "clip"
    assert str(refused.value) == (
        f"{directory} has normal images in {told}; those in {ignored} would be ignored: move them to {kept}, or out of "
        f"{directory}"
    )


def test_normal_images_beside_a_train_folder_without_any_are_not_ignored(tmp_path: Path) -> None:
    pictures(tmp_path / "clip/good", 3, seed=0)
    (tmp_path / "clip/train").mkdir()
    with pytest.raises(
        DatasetError, match=r"has normal images in good \(3 images\); those in good would be ignored: move"
    ):
        index_dataset(tmp_path, layout="folder")


def test_a_test_folder_beside_good_is_counted_as_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path / "clip/good", 5, seed=0)
    pictures(tmp_path / "clip/test/dent", 2, seed=1)
    assert len(index_dataset(tmp_path, layout="folder")) == 5
    assert "left out: 2 outside the folders of the layout" in caplog.text


def test_what_is_missing_is_to_be_added_in_the_folders_of_the_layout(tmp_path: Path) -> None:
    pictures(tmp_path / "flat/clip/good", 1, seed=0)
    pictures(tmp_path / "split/clip/train/good", 12, seed=0)
    pictures(tmp_path / "visa/clip/Data/Images/Normal", 1, seed=0)
    advice = {}
    for layout, name in (("folder", "flat"), ("mvtec", "split"), ("visa", "visa")):
        index = index_dataset(tmp_path / name, layout=layout)
        report = validate_dataset(index, tmp_path / name, layout=layout)
        advice[name] = [finding.advice for finding in report.findings if finding.code == "empty_category"]
    defective = "To measure it, add known defective images to"
    assert advice == {
        "flat": ["Add good images to good.", f"{defective} <defect>."],
        "split": ["Add good images to test/good.", f"{defective} test/<defect>."],
        "visa": ["Add good images to Data/Images/Normal.", f"{defective} Data/Images/Anomaly."],
    }


def test_a_link_to_a_category_is_followed(tmp_path: Path) -> None:
    write_tiny_mvtec(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/bottle").symlink_to(tmp_path / "elsewhere/bottle")
    assert resolved_layout("auto", tmp_path / "data") == "mvtec"
    assert set(index_dataset(tmp_path / "data", layout="mvtec")["category"]) == {"bottle"}


def test_categories_of_two_layouts_or_of_none_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no category of any layout found in .*it holds nothing"):
        detect_layout(tmp_path)
    write_tiny_mvtec(tmp_path)
    (tmp_path / "cap/train/good").mkdir(parents=True)
    (tmp_path / "cap/test/good").mkdir(parents=True)
    assert detect_layout(tmp_path)[0] == "mvtec"  # a category without masks fits any layout that has its folders
    write_tiny_autovi(tmp_path, categories=("bracket",))
    with pytest.raises(DatasetError, match=r"different layouts: mvtec \(bottle/.*\), autovi \(bracket/def.*say "):
        detect_layout(tmp_path)
    assert resolved_layout("mvtec", tmp_path) == "mvtec"
