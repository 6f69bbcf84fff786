"""Validation: each kind of damage is found, is named, and nothing else is."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.config import Layout, PreprocessingConfig
from data_contracts.errors import DatasetError
from data_contracts.validation import Finding, ValidationReport
from pipeline_lib.dataset.ground_truth import read_mask_channels
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.validation import render_validation_text, validate_dataset
from tests.dataset_fixtures import (
    DEFECTS,
    tiny_pixels,
    truncate,
    write_image,
    write_tiny_autovi,
    write_tiny_folder,
    write_tiny_mvtec,
)

PREPROCESSING = PreprocessingConfig(small_size=(64, 48), large_size=(64, 48))
MASKS = "bracket/ground_truth/scratch"


def check(root: Path, *, layout: Layout = "autovi", **options: Any) -> ValidationReport:
    index = index_dataset(root, layout=layout, require_train="none", equal_stems="kept")
    return validate_dataset(index, root, layout=layout, **{"preprocessing": PREPROCESSING, **options})


def write_config(root: Path, *entries: dict[str, Any]) -> None:
    (root / "bracket/defects_config.json").write_text(json.dumps(entries))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Clean data: validation finds nothing in it."""
    return write_tiny_autovi(tmp_path, categories=("bracket",), train=10, good=4, defective=20)


def test_clean_data_has_no_findings_and_full_counts(root: Path) -> None:
    report = check(root)
    assert report.findings == ()
    assert report.ok
    assert report.counts == {"bracket": {"train": {"good": 10}, "test": {"good": 4, "missing": 20, "scratch": 20}}}
    assert report.mask_channels == {"bracket": {"missing": 21, "scratch": 21}}
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report


def unreadable(root: Path) -> None:
    truncate(root / "bracket/train/good/0003.png")
    write_image(root / "bracket/train/good/0010.png", tiny_pixels(np.random.default_rng(9), (64, 48)))


def no_mask(root: Path) -> None:
    (root / MASKS / "0002/0000.png").unlink()


def no_image(root: Path) -> None:
    shutil.move(root / MASKS / "0002", root / MASKS / "2222")
    shutil.copytree(root / MASKS / "2222", root / MASKS / "0002")


def small_mask(root: Path) -> None:
    write_image(root / MASKS / "0002/0000.png", np.full((24, 32), 255, np.uint8))


def other_value(root: Path) -> None:
    write_image(root / MASKS / "0002/0000.png", np.full((48, 64), 77, np.uint8))


def empty_mask(root: Path) -> None:
    write_image(root / MASKS / "0002/0000.png", np.zeros((48, 64), np.uint8))


def broken_mask(root: Path) -> None:
    truncate(root / MASKS / "0002/0000.png")


def drawn_in_alpha(root: Path) -> None:
    pixels = np.full((48, 64, 4), 255, np.uint8)
    pixels[:40, :, 3] = 0
    write_image(root / MASKS / "0002/0000.png", pixels)


def inverted(root: Path) -> None:
    values = np.full((48, 64), 255, np.uint8)
    values[4:8, 4:8] = 0
    write_image(root / MASKS / "0002/0000.png", values)


def framed(root: Path) -> None:
    values = np.full((48, 64), 255, np.uint8)
    values[2:-2, 2:-2] = 0
    write_image(root / MASKS / "0002/0000.png", values)


def saved_twice(root: Path) -> None:
    shutil.copy(root / MASKS / "0002/0000.png", root / MASKS / "0002/0001.png")


def two_endings(root: Path) -> None:
    write_image(root / "bracket/test/scratch/0002.bmp", tiny_pixels(np.random.default_rng(9), (64, 48)))


def no_annotation(root: Path) -> None:
    for name in ("0020", "0021"):
        write_image(
            root / f"bracket/test/unannotated/{name}.png", tiny_pixels(np.random.default_rng(int(name)), (64, 48))
        )
    for name in range(18):
        write_image(
            root / f"bracket/test/unannotated/{name}.png", tiny_pixels(np.random.default_rng(99 + name), (64, 48))
        )


def another_name_of_good(root: Path) -> None:
    (root / "bracket/test/scratch").rename(root / "bracket/test/OK")
    (root / "bracket/ground_truth/scratch").rename(root / "bracket/ground_truth/OK")


def name_of_unjudged(root: Path) -> None:
    (root / "bracket/test/scratch").rename(root / "bracket/test/To_check")
    (root / "bracket/ground_truth/scratch").rename(root / "bracket/ground_truth/To_check")


def speck(root: Path) -> None:
    values = np.zeros((48, 64), np.uint8)
    values[5, 5] = 255
    write_image(root / MASKS / "0002/0000.png", values)  # int(0.5 x 1) is 0


def high_threshold(root: Path) -> None:
    write_config(root, DEFECTS[0], {**DEFECTS[1], "saturation_threshold": 10_000})


def relative_above_one(root: Path) -> None:
    write_config(root, {**DEFECTS[0], "saturation_threshold": 50}, DEFECTS[1])


def trained_on_test(root: Path) -> None:
    shutil.copy(root / "bracket/train/good/0001.png", root / "bracket/test/good/0009.png")


def twice_in_train(root: Path) -> None:
    shutil.copy(root / "bracket/train/good/0001.png", root / "bracket/train/good/0001_copy.png")


def good_and_bad(root: Path) -> None:
    shutil.copy(root / "bracket/test/scratch/0001.png", root / "bracket/test/good/0009.png")


def no_train(root: Path) -> None:
    shutil.rmtree(root / "bracket/train/good")


def no_test_good(root: Path) -> None:
    shutil.rmtree(root / "bracket/test/good")


def nothing_defective(root: Path) -> None:
    shutil.rmtree(root / "bracket/ground_truth")
    for folder in ("scratch", "missing"):
        shutil.rmtree(root / "bracket/test" / folder)


def no_config(root: Path) -> None:
    (root / "bracket/defects_config.json").unlink()


def bad_config(root: Path) -> None:
    write_config(root, DEFECTS[0], {**DEFECTS[1], "pixel_value": 0})


def few(root: Path) -> None:
    (root / "bracket/train/good/0000.png").unlink()


def thin(root: Path) -> None:
    (root / "bracket/test/scratch/0002.png").unlink()
    shutil.rmtree(root / MASKS / "0002")


def wide(root: Path) -> None:
    write_image(root / "bracket/train/good/0003.png", tiny_pixels(np.random.default_rng(9), (90, 48)))


@pytest.mark.parametrize(
    ("damage", "severity", "code", "path", "message"),
    [
        (unreadable, "error", "unreadable_image", "bracket/train/good/0003.png", "truncated"),
        (no_mask, "error", "missing_mask", "bracket/test/scratch/0002.png", "ground_truth/scratch/0002/*.png"),
        (no_image, "warning", "orphaned_mask", f"{MASKS}/2222", "belongs to no image: test/scratch holds no 2222"),
        (small_mask, "error", "mask_size", f"{MASKS}/0002/0000.png", "is 32x24 pixels, its image 64x48"),
        (other_value, "error", "mask_value_unknown", f"{MASKS}/0002/0000.png", "holds the value 77"),
        (empty_mask, "error", "mask_empty", f"{MASKS}/0002/0000.png", "is empty"),
        (broken_mask, "error", "unreadable_image", f"{MASKS}/0002/0000.png", "0000.png"),
        (drawn_in_alpha, "error", "mask_alpha", f"{MASKS}/0002/0000.png", "drawn in its alpha channel"),
        (
            inverted,
            "warning",
            "mask_inverted",
            f"{MASKS}/0002/0000.png",
            "marks 99 % of the image and all four borders",
        ),
        (framed, "warning", "mask_inverted", f"{MASKS}/0002/0000.png", "14 % of the image and all four borders"),
        (saved_twice, "warning", "mask_twice", f"{MASKS}/0002/0001.png", "scratch where 0000.png marks it already"),
        (two_endings, "error", "equal_stems", "bracket/test/scratch/0002.bmp", "bracket/test/scratch/0002.png in the"),
        (no_annotation, "note", "unannotated", "bracket/test/unannotated/0.png", "20 defective images of test/unann"),
        (another_name_of_good, "warning", "good_by_another_name", "", "test/OK counts as a kind of defect"),
        (name_of_unjudged, "warning", "perhaps_unjudged", "", "To_check sounds as if nobody had judged its 20 images"),
        (speck, "warning", "saturation_zero", f"{MASKS}/0002/0000.png", "comes out as 0 of 1 pixels"),
        (high_threshold, "note", "saturation_above_area", None, "missing is above the area of 21 of its 21 channels"),
        (
            relative_above_one,
            "warning",
            "saturation_above_area",
            "bracket/defects_config.json",
            "scratch is 50, above 1",
        ),
        (
            trained_on_test,
            "warning",
            "duplicate_across_splits",
            "bracket/train/good/0001.png",
            "bracket/test/good/0009",
        ),
        (good_and_bad, "warning", "duplicate_across_splits", "bracket/test/good/0009.png", "bracket/test/scratch/0001"),
        (
            twice_in_train,
            "note",
            "duplicate_across_splits",
            "bracket/train/good/0001.png",
            "0001_copy.png (same folder)",
        ),
        (no_train, "error", "empty_category", "", "no readable training image"),
        (no_test_good, "warning", "empty_category", "", "no good test image"),
        (nothing_defective, "warning", "empty_category", "", "no defective test image: fine for judging new images"),
        (no_config, "error", "no_defects_config", "bracket/defects_config.json", "No such file"),
        (bad_config, "error", "no_defects_config", "bracket/defects_config.json", "entry 2 (missing), key pixel_value"),
        (few, "warning", "few_images", "", "only 9 training images"),
        (thin, "note", "thin_class", "", "only 19 test images in scratch"),
        (wide, "warning", "aspect_ratio", "", "1 of 54 images differ"),
    ],
)
def test_each_damage_is_one_finding(
    root: Path, damage: Callable[[Path], None], severity: str, code: str, path: str | None, message: str
) -> None:
    damage(root)
    report = check(root)
    (finding,) = report.findings
    assert (finding.severity, finding.code, finding.category) == (severity, code, "bracket")
    assert path is None or finding.path == path
    assert message in finding.message
    assert report.ok == (severity != "error")
    text = render_validation_text(report)
    assert f"{severity.upper()} {code} (1)" in text
    assert finding.message in text
    assert finding.advice in text


def test_a_bad_mask_leaves_the_others_usable(root: Path) -> None:
    other_value(root)
    assert check(root).mask_channels == {"bracket": {"missing": 21, "scratch": 20}}


def test_counts_that_differ_from_the_published_ones_are_a_note(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path, categories=("pipe_staple",), train=10, good=4, defective=20)
    (finding,) = check(tmp_path).findings
    assert (finding.severity, finding.code) == ("note", "count_differs")
    assert "train/good 10 (AutoVI 1.0.0 has 191)" in finding.message
    assert "test/scratch 20 (AutoVI 1.0.0 has 0)" in finding.message


def test_defect_weights_that_name_nothing(root: Path) -> None:
    (finding,) = check(root, defect_weights={"scratch": 2.0, "scrach": 1.0}).findings
    assert (finding.severity, finding.code) == ("warning", "defect_weight_unknown")
    assert "'scrach'" in finding.message
    assert "missing, scratch" in finding.advice
    by_key = check(root, defect_weights="severity")
    assert [(finding.severity, finding.code) for finding in by_key.findings] == [("error", "defect_weight_unknown")] * 2
    write_config(root, *({**entry, "severity": 2} for entry in DEFECTS))
    assert check(root, defect_weights="severity").findings == ()


def test_a_category_without_any_image_is_found(root: Path) -> None:
    (root / "hollow/train").mkdir(parents=True)
    assert {(f.category, f.severity, f.code) for f in check(root).findings} == {
        ("hollow", "error", "empty_category"),
        ("hollow", "warning", "empty_category"),
    }
    assert check(root, categories=["bracket"]).findings == ()


def test_mvtec_and_folder_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_mvtec(tmp_path / "mvtec", train=10, defective=20)
    report = check(tmp_path / "mvtec", layout="mvtec")
    assert report.findings == ()
    assert report.mask_channels == {"bottle": {"broken": 20}}
    masks = tmp_path / "mvtec/bottle/ground_truth/broken"
    (masks / "003_mask.png").rename(masks / "333_mask.png")
    noise = np.zeros((48, 64), np.uint8)
    noise[::2, ::2] = 255
    write_image(masks / "004_mask.png", noise)
    monkeypatch.setattr("pipeline_lib.dataset.ground_truth.MAX_COMPONENTS", 700)
    found = {(f.severity, f.code, f.path) for f in check(tmp_path / "mvtec", layout="mvtec").findings}
    assert found == {
        ("error", "missing_mask", "bottle/test/broken/003.png"),
        ("error", "mask_fragmented", "bottle/ground_truth/broken/004_mask.png"),
        ("warning", "orphaned_mask", "bottle/ground_truth/broken/333_mask.png"),
    }
    (masks / "333_mask.png").rename(masks / "003.png")
    (hinted,) = [f for f in check(tmp_path / "mvtec", layout="mvtec").findings if f.code == "missing_mask"]
    assert "003_mask.png is not there; there is 003.png: rename it" in hinted.message
    write_tiny_folder(tmp_path / "folder", good=15, defective=20)
    report = check(tmp_path / "folder", layout="folder", defect_weights="severity")
    assert report.findings == ()
    assert report.counts == {"folder": {"train": {"good": 12}, "test": {"good": 3, "defective": 20}}}


def test_soft_edges_of_an_mvtec_mask_are_cut_at_half_and_said(tmp_path: Path) -> None:
    write_tiny_mvtec(tmp_path, train=10, defective=20)
    values = np.zeros((48, 64), np.uint8)
    values[10:20, 10:20], values[11:19, 11:19], values[12:18, 12:18] = 100, 128, 255
    write_image(tmp_path / "bottle/ground_truth/broken/003_mask.png", values)
    (finding,) = check(tmp_path, layout="mvtec").findings
    assert (finding.severity, finding.code) == ("note", "mask_soft")
    assert "64 pixels lie between" in finding.message
    assert "(64 of the 100 that are not 0)" in finding.message
    (channel,) = read_mask_channels(tmp_path, "bottle", "broken", "003", layout="mvtec", width=64, height=48)
    assert np.array_equal(channel.mask, values >= 128)


def test_findings_are_most_severe_first_and_long_lists_are_cut_short(root: Path) -> None:
    for number in range(15):
        truncate(root / f"bracket/test/scratch/{number:04d}.png")
    twice_in_train(root)
    report = check(root)
    assert [finding.severity for finding in report.findings] == ["error"] * 15 + ["note"] * 2
    assert (report.count("error"), report.count("warning"), report.count("note")) == (15, 0, 2)
    text = render_validation_text(report)
    assert "15 errors, 0 warnings, 2 notes." in text
    assert text.count("cannot read image") == 10
    assert "... and 5 more" in text
    assert text.count("-> Replace or remove") == 1


def test_the_text_of_a_report() -> None:
    finding = Finding(severity="note", code="thin_class", category="bolt", message="few", advice="look")
    counts = {"bolt": {"train": {"good": 3}, "test": {"good": 2, "bent": 1}}}
    report = ValidationReport(
        root="data", layout="autovi", findings=(finding,), counts=counts, mask_channels={"bolt": {"bent": 4}}
    )
    assert render_validation_text(report).splitlines() == [
        "Data set data (layout autovi)",
        "",
        "  bolt: 3 train, 2 test good, 1 defective (bent 1); 4 mask channels",
        "",
        "0 errors, 0 warnings, 1 notes.",
        "",
        "NOTE thin_class (1)",
        "  bolt: few",
        "  -> look",
    ]


def test_only_a_missing_root_raises(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        validate_dataset(index_dataset(root), tmp_path / "gone")


def test_real_data() -> None:
    real = Path(os.environ.get("FEDPATCH_REAL_DATA", Path(__file__).resolve().parents[3] / "../shared/datasets/real3"))
    if not real.is_dir():
        pytest.skip(f"no real data at {real} (set FEDPATCH_REAL_DATA)")
    report = validate_dataset(index_dataset(real, max_images=12), real)
    assert report.ok
    assert {finding.code for finding in report.findings} <= {"aspect_ratio", "saturation_above_area", "thin_class"}


@pytest.mark.parametrize(
    ("shapes", "advice"),
    [
        ([(96, 40)] * 12, "Set preprocessing.size_by_category.<category>: [width, height] to the shape of the images."),
        ([(96, 40)] * 10 + [(40, 96)] * 2, "to the shape of the images, 96x40: 2 would still differ."),
        ([(96, 40), (40, 96), (60, 96), (50, 50)] * 3, "Shapes are mixed and no one size fits"),
    ],
)
def test_the_advice_on_a_size_can_be_followed(shapes: list[tuple[int, int]], advice: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(shapes):
        write_image(tmp_path / f"a/train/good/{number:02d}.png", rng.integers(0, 255, (height, width, 3), np.uint8))
    sizes = PreprocessingConfig(size_by_category={"a": (64, 64)})
    report = validate_dataset(index_dataset(tmp_path), tmp_path, preprocessing=sizes)
    (finding,) = [one for one in report.findings if one.code == "aspect_ratio"]
    assert advice in finding.advice
    assert "training images most often 96x40" in finding.message
