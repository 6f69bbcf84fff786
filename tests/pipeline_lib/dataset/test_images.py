"""Reading images: pixel types, and files that cannot be read."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import ImageError
from pipeline_lib.dataset.images import MAX_PIXELS, image_size, is_image_file, load_image, orientation, to_rgb, turned
from tests.dataset_fixtures import tiny_pixels, truncate, write_image


def _bomb(path: Path, *, width: int, height: int) -> Path:
    """A PNG of a few bytes whose header announces a huge image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.TIFF"])
def test_lossless_formats_give_back_the_pixels(tmp_path: Path, name: str) -> None:
    pixels = tiny_pixels(np.random.default_rng(0), (20, 10))
    image = load_image(write_image(tmp_path / name, pixels))
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), pixels)
    assert image_size(tmp_path / name) == (20, 10)
    assert is_image_file(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jpg", "b.JPEG"])
def test_jpeg_is_close(tmp_path: Path, name: str) -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    loaded = np.array(load_image(write_image(tmp_path / name, pixels))).astype(int)
    assert np.abs(loaded - pixels).max() <= 3


def test_webp_is_read(tmp_path: Path) -> None:
    pixels = tiny_pixels(np.random.default_rng(0), (20, 10))
    rgba = np.dstack([pixels, np.linspace(1, 255, 200).astype(np.uint8).reshape(10, 20)])
    for name, written in (("a.webp", pixels), ("alpha.WEBP", rgba)):
        Image.fromarray(written).save(tmp_path / name, "WEBP", lossless=True)
        assert np.array_equal(np.array(load_image(tmp_path / name)), pixels)
        assert image_size(tmp_path / name) == (20, 10)
        assert is_image_file(tmp_path / name)
    content = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "cut.webp").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"cut\.webp"):
        load_image(tmp_path / "cut.webp")


def test_grey_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    assert np.array_equal(np.array(load_image(write_image(tmp_path / "grey.png", grey)))[..., 1], grey)

    rgba = np.dstack([tiny_pixels(np.random.default_rng(1), (4, 3)), np.zeros((3, 4), np.uint8)])
    loaded = np.array(load_image(write_image(tmp_path / "rgba.png", rgba)))
    assert np.array_equal(loaded, rgba[..., :3]), "alpha is dropped, not blended"

    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.array(load_image(tmp_path / "palette.png"))[..., 0], grey)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_its_type_not_by_the_image(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535], [0, 128, 129, 1000]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    expected = np.array([[0, 1, 128, 255], [0, 0, 1, 4]])  # round(value / 257)
    assert np.array_equal(np.array(load_image(tmp_path / f"deep.{suffix}"))[..., 0], expected)


def test_float_images_are_refused_with_what_is_accepted(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=r"float\.tif.*32-bit.*accepted are PNG"):
        load_image(tmp_path / "float.tif")


def test_unreadable_files_name_the_file_and_the_reason(tmp_path: Path) -> None:
    pixels = tiny_pixels(np.random.default_rng(0), (64, 48))
    for name in ("cut.png", "cut.jpg", "cut.bmp"):
        truncate(write_image(tmp_path / name, pixels))
        with pytest.raises(ImageError, match=rf"{name}.*truncated or damaged"):
            load_image(tmp_path / name)
    noisy = tiny_pixels(np.random.default_rng(0), (200, 200))
    content = bytearray(write_image(tmp_path / "bytes.png", noisy).read_bytes())
    for number in range(len(content) // 2, len(content) // 2 + 16):  # not cut: other bytes in the middle
        content[number] ^= 0xFF
    (tmp_path / "bytes.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"bytes\.png.*truncated or damaged"):
        load_image(tmp_path / "bytes.png")
    truncate(write_image(tmp_path / "stub.png", pixels), keep=0.001)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "dir.png").mkdir()
    for name, reason in {
        "stub.png": "cannot read image",
        "empty.png": "the file is empty",
        "text.png": "not an image",
        "dir.png": "directory",
        "gone.png": "No such file",
    }.items():
        with pytest.raises(ImageError, match=rf"{name}.*{reason}|{reason}.*{name}"):
            load_image(tmp_path / name)


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for suffix in ("png", "jpg", "tif", "bmp"):
        content = write_image(tmp_path / f"a.{suffix}", tiny_pixels(rng, (24, 18))).read_bytes()
        for _ in range(60):
            broken = bytearray(content)
            for position in rng.integers(0, min(len(broken), 400), 4):
                broken[position] = int(rng.integers(256))
            (tmp_path / f"b.{suffix}").write_bytes(broken)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    image = load_image(tmp_path / f"b.{suffix}")
                except ImageError:
                    continue
            assert image.mode == "RGB"


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (MAX_PIXELS // 1000 + 1, 1000)])
def test_decompression_bombs_are_refused_without_decoding(tmp_path: Path, width: int, height: int) -> None:
    path = _bomb(tmp_path / "bomb.png", width=width, height=height)
    for read in (load_image, image_size):
        with pytest.raises(ImageError, match=r"bomb\.png: too large"):
            read(path)


def test_hidden_and_other_files_are_no_images() -> None:
    for name in (".a.png", "._a.png", "a.jfif", "a.pgm", "a.jp2", "a.json", "a.png.txt", "Thumbs.db", "png"):
        assert not is_image_file(Path(name)), name


def test_to_rgb_leaves_its_argument_alone() -> None:
    image = Image.fromarray(np.zeros((2, 2), np.uint8)).convert("P")
    image.info["transparency"] = 0
    to_rgb(image)
    assert image.info["transparency"] == 0
    assert image.mode == "P"


UPRIGHT = np.array([[1, 2, 3], [4, 5, 6]], np.uint8) * 40
STORED = {
    1: UPRIGHT, 2: UPRIGHT[:, ::-1], 3: UPRIGHT[::-1, ::-1], 4: UPRIGHT[::-1],
    5: UPRIGHT.T, 6: UPRIGHT.T[::-1], 7: UPRIGHT.T[::-1, ::-1], 8: UPRIGHT.T[:, ::-1],
}  # fmt: skip
"""Orientation -> the pixels that a file with it holds, where UPRIGHT is what is to be seen."""


def write_turned(path: Path, tag: int, pixels: np.ndarray) -> Path:
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"tiffinfo": {274: tag}} if path.suffix == ".tif" else {"exif": exif.tobytes(), "lossless": True}
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_the_orientation_is_read_and_turns_the_picture_upright(tmp_path: Path, suffix: str, tag: int) -> None:
    path = write_turned(tmp_path / f"a.{suffix}", tag, np.ascontiguousarray(STORED[tag]))
    assert orientation(path) == tag
    assert np.array_equal(turned(Image.fromarray(np.ascontiguousarray(STORED[tag])), tag), UPRIGHT)


def test_an_orientation_that_is_none_is_upright(tmp_path: Path) -> None:
    assert orientation(write_turned(tmp_path / "a.jpg", 9, UPRIGHT)) == 1
    assert orientation(write_image(tmp_path / "a.bmp", UPRIGHT)) == 1
    with pytest.raises(ImageError, match=r"gone\.png"):
        orientation(tmp_path / "gone.png")
