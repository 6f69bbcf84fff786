"""What validation says of the images' pixels: each kind is found, is named, and nothing else is."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.config import PreprocessingConfig
from data_contracts.validation import ValidationReport
from pipeline_lib.dataset.ground_truth import MaskError, read_mask_values
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.validation import validate_dataset
from tests.dataset_fixtures import tiny_pixels, write_deep_png, write_image, write_tiff, write_tiny_autovi

SIZE = (64, 48)
PREPROCESSING = PreprocessingConfig(small_size=SIZE, large_size=SIZE)
TRAIN, TEST = "bracket/train/good", "bracket/test/good"


def check(root: Path, preprocessing: PreprocessingConfig = PREPROCESSING) -> ValidationReport:
    index = index_dataset(root, orientation=preprocessing.orientation)
    return validate_dataset(index, root, preprocessing=preprocessing)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Clean 8-bit data: validation finds nothing in it."""
    return write_tiny_autovi(tmp_path, categories=("bracket",), train=10, good=4, defective=20)


@pytest.fixture
def deep_root(root: Path) -> Path:
    """The same with 12-bit values in 16-bit files."""
    for path in root.glob("bracket/t*/*/*.png"):
        write_deep_png(path, twelve_bits(np.asarray(Image.open(path))))
    return root


def twelve_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) << 4


def other(size: tuple[int, int] = SIZE) -> np.ndarray:
    return tiny_pixels(np.random.default_rng(9), size)


def saved_as_bmp(root: Path) -> None:
    Image.open(root / TRAIN / "0001.png").save(root / TEST / "0009.bmp")


def saved_with_other_compression(root: Path) -> None:
    Image.open(root / TRAIN / "0001.png").save(root / TEST / "0009.png", compress_level=1)


def black_in_training(root: Path) -> None:
    write_image(root / TRAIN / "0003.png", np.zeros((48, 64, 3), np.uint8))


def constant_in_test(root: Path) -> None:
    write_image(root / TEST / "0003.png", np.full((48, 64, 3), (90, 80, 70), np.uint8))


def grey_in_test(root: Path) -> None:
    write_image(root / TEST / "0003.png", other()[..., 0])


def larger_in_test(root: Path) -> None:
    write_image(root / TEST / "0003.png", other((128, 96)))


def several_pages(root: Path) -> None:
    (root / TEST / "0003.png").unlink()
    pages = [Image.fromarray(other()), Image.fromarray(other() // 2)]
    pages[0].save(root / TEST / "0003.tif", save_all=True, append_images=pages[1:])


@pytest.mark.parametrize(
    ("damage", "severity", "code", "path", "message"),
    [
        (saved_as_bmp, "warning", "duplicate_across_splits", f"{TRAIN}/0001.png", "stored another way, also lies at"),
        (saved_with_other_compression, "warning", "duplicate_across_splits", f"{TRAIN}/0001.png", f"{TEST}/0009.png"),
        (black_in_training, "warning", "constant_image", f"{TRAIN}/0003.png", "all black"),
        (constant_in_test, "warning", "constant_image", f"{TEST}/0003.png", "one colour alone"),
        (grey_in_test, "warning", "train_test_differ", f"{TEST}/0003.png", "1 of 44 test images, .* colour: grey, not"),
        (larger_in_test, "warning", "train_test_differ", f"{TEST}/0003.png", "in size: 128x96, not 64x48"),
        (several_pages, "note", "several_pages", f"{TEST}/0003.tif", "1 files hold several pages, this one 2"),
    ],
)
def test_each_damage_is_one_finding(
    root: Path, damage: Callable[[Path], None], severity: str, code: str, path: str, message: str
) -> None:
    damage(root)
    (finding,) = check(root).findings
    assert (finding.severity, finding.code, finding.path) == (severity, code, path)
    assert re.search(message, finding.message)
    assert finding.advice


def test_each_black_image_is_named_and_none_is_a_copy_of_another(root: Path) -> None:
    black_in_training(root)
    write_image(root / TEST / "0003.png", np.zeros((48, 64, 3), np.uint8))
    assert [(one.code, one.path) for one in check(root).findings] == [
        ("constant_image", f"{TRAIN}/0003.png"),
        ("constant_image", f"{TEST}/0003.png"),
    ]


def test_the_range_of_deep_images_is_said(deep_root: Path) -> None:
    (finding,) = check(deep_root).findings
    assert (finding.severity, finding.code) == ("note", "value_range")
    assert "have 16 bits a value" in finding.message
    assert "0 to 4095 becomes black to white" in finding.message
    assert check(deep_root, PREPROCESSING.model_copy(update={"value_range": "container"})).findings == ()


def test_a_brighter_test_image_is_an_error_that_names_both(deep_root: Path) -> None:
    bright = twelve_bits(other())
    bright[0, 0] = 4096
    write_deep_png(deep_root / TEST / "0003.png", bright)
    finding = check(deep_root).findings[0]
    assert (finding.severity, finding.code, finding.path) == ("error", "too_bright", f"{TEST}/0003.png")
    assert "holds the value 4096, and the value range of its category is 0 to 4095" in finding.message
    assert check(deep_root).counts["bracket"]["test"]["good"] == 3


def test_8_bits_in_training_and_12_in_test(root: Path) -> None:
    for path in (root / TEST).iterdir():
        write_deep_png(path, twelve_bits(np.asarray(Image.open(path))))
    found = check(root).findings
    assert [one.code for one in found] == ["too_bright"] * 4 + ["empty_category", "train_test_differ"]
    assert "differ from all training images in bit depth: 16 bits, not 8 bits" in found[-1].message


def test_mixed_depths_in_training(root: Path) -> None:
    write_deep_png(root / TRAIN / "0003.png", twelve_bits(other()))
    found = check(root).findings
    assert [(one.severity, one.code) for one in found] == [("error", "mixed_depth")]
    assert f"9 with 8 bits ({TRAIN}/0000.png" in found[0].message
    assert f"1 with 16 bits ({TRAIN}/0003.png)" in found[0].message


# --- orientation -----------------------------------------------------------------------------------------------------


def stored_turned(path: Path, tag: int) -> None:
    """Store an image so that `tag` makes it upright, as a camera that was held sideways does."""
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[tag]
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.open(path).transpose(back).save(path, exif=exif)


def turned_back(path: Path) -> None:
    """The mask as someone draws it who sees the stored pixels."""
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)


def test_a_mask_is_taken_as_drawn_on_the_sides_that_it_fits(root: Path) -> None:
    mask = root / "bracket/ground_truth/scratch/0002/0000.png"
    expected = read_mask_values(mask, width=64, height=48)
    for path in root.glob("bracket/t*/*/*.png"):
        stored_turned(path, 6)
    turned_back(mask)
    assert check(root).findings == ()
    assert np.array_equal(read_mask_values(mask, width=64, height=48, orientation=6), expected)
    with pytest.raises(MaskError, match="is 48x64 pixels, its image 64x48"):
        read_mask_values(mask, width=64, height=48)
    as_earlier = PREPROCESSING.model_copy(update={"orientation": "stored"})
    codes = {one.code for one in check(root, as_earlier).findings}
    assert codes == {"aspect_ratio", "mask_size"}


def test_a_mask_that_fits_both_ways_is_a_finding(root: Path) -> None:
    stored_turned(root / "bracket/test/scratch/0002.png", 3)
    (finding,) = check(root).findings
    assert (finding.severity, finding.code) == ("warning", "mask_orientation")
    assert finding.path == "bracket/ground_truth/scratch/0002/0000.png"


def test_the_tag_of_a_tiff_is_applied_once(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
    write_tiff(tmp_path / "c/train/good/a.tif", grey, tags=[(274, 6)])
    (row,) = index_dataset(tmp_path).to_dict("records")
    assert (row["width"], row["height"], row["orientation"]) == (6, 8, 6)
