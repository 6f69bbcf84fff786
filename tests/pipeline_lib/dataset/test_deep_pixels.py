"""Values of more than 8 bits: as the file holds them, and as 8-bit RGB by the one range of their category."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import ImageError
from data_contracts.settings import AS_EARLIER, ImageReading
from pipeline_lib.dataset.images import StoredImage, load_image, read_bytes, read_stored
from tests.dataset_fixtures import write_deep_png, write_image, write_tiff

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4096, (6, 8)).astype(np.uint16)
COLOURS = RNG.integers(0, 4096, (6, 8, 3)).astype(np.uint16)
ALPHA = np.full((6, 8, 1), 65535, np.uint16)


def stored(path: Path) -> StoredImage:
    return read_stored(read_bytes(path), name=path.name)


def pixels(path: Path, value_range: int | None) -> np.ndarray:
    return np.array(load_image(path, ImageReading(value_range=value_range)))


def scaled(values: np.ndarray, value_range: int) -> np.ndarray:
    return np.floor(values.astype(float) * 255 / value_range + 0.5).astype(np.uint8)


@pytest.mark.parametrize("values", [GREY, COLOURS, np.dstack([GREY, ALPHA]), np.dstack([COLOURS, ALPHA])])
def test_png_is_read_whole(tmp_path: Path, values: np.ndarray) -> None:
    found = stored(write_deep_png(tmp_path / "a.png", values))
    is_grey = values.shape[2:] in ((), (2,))
    expected = np.atleast_3d(values)[..., 0] if is_grey else values[..., :3]
    assert found.deep is not None
    assert np.array_equal(found.deep, expected)
    assert (found.bit_depth, found.is_grey, found.max_value) == (16, is_grey, expected.max())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_is_read_whole_in_both_byte_orders(tmp_path: Path, order: str, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    if compression is None:
        assert np.array_equal(np.asarray(stored(write_tiff(path, COLOURS, order=order, photometric=2)).deep), COLOURS)
        write_tiff(path, GREY, order=order)
    else:
        Image.fromarray(GREY.astype(f"{order}u2")).save(path, compression=compression)
    assert np.array_equal(np.asarray(stored(path).deep), GREY)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_values_are_scaled_by_the_range_and_never_by_the_image(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    grey = (GREY.astype(int) * top // 4095).astype(np.uint16)
    grey[0, :2] = 0, top
    png = pixels(write_deep_png(tmp_path / "a.png", grey), top)
    assert np.array_equal(png[..., 1], scaled(grey, top))
    assert (png[0, 0, 0], png[0, 1, 0]) == (0, 255)
    assert np.array_equal(pixels(write_tiff(tmp_path / "a.tif", grey), top), png)
    dark = (grey // 2).astype(np.uint16)
    assert np.array_equal(pixels(write_deep_png(tmp_path / "dark.png", dark), top)[..., 0], scaled(dark, top))
    rgb = np.dstack([grey, dark, grey])
    for path in (write_deep_png(tmp_path / "c.png", rgb), write_tiff(tmp_path / "c.tif", rgb, photometric=2)):
        assert np.array_equal(pixels(path, top), scaled(rgb, top))


def test_a_packed_12_bit_tiff_says_its_depth(tmp_path: Path) -> None:
    found = stored(write_tiff(tmp_path / "a.tif", GREY, bits=12))
    assert found.bit_depth == 12
    assert np.array_equal(np.asarray(found.deep), GREY)


def test_earlier_models_read_the_upper_byte_or_a_257th(tmp_path: Path) -> None:
    as_earlier = AS_EARLIER.of("any")
    grey = np.array(load_image(write_deep_png(tmp_path / "a.png", GREY), as_earlier))
    assert np.array_equal(grey[..., 0], (GREY.astype(int) + 128) // 257)
    colours = np.array(load_image(write_deep_png(tmp_path / "c.png", COLOURS), as_earlier))
    assert np.array_equal(colours, COLOURS >> 8)
    white = np.array(load_image(write_tiff(tmp_path / "w.tif", GREY, photometric=0), as_earlier))
    assert np.array_equal(white, grey)
    assert np.array_equal(pixels(tmp_path / "a.png", 65535), grey)


def test_min_is_white_is_turned_round_within_the_range(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "w.tif", GREY, photometric=0)
    assert np.array_equal(pixels(path, 4095)[..., 0], scaled(4095 - GREY.astype(int), 4095))
    eight = write_tiff(tmp_path / "w8.tif", (GREY >> 4).astype(np.uint8), photometric=0, bits=8)
    assert np.array_equal(pixels(eight, 255)[..., 0], 255 - (GREY >> 4))


def test_a_brighter_image_is_refused_and_8_bits_stay_as_they_are(tmp_path: Path) -> None:
    path = write_deep_png(tmp_path / "bright.png", GREY)
    with pytest.raises(ImageError, match=rf"bright\.png: it holds the value {GREY.max()}.*0 to 1023.*value_range"):
        pixels(path, 1023)
    eight = write_image(tmp_path / "a.png", (GREY >> 4).astype(np.uint8))
    assert np.array_equal(pixels(eight, 4095), pixels(eight, None))


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_values_are_refused(tmp_path: Path, dtype: type, order: str) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    path = write_tiff(tmp_path / "s.tif", (GREY % 100).astype(dtype), order=order, bits=bits, tags=[(339, 2)])
    with pytest.raises(ImageError, match=r"s\.tif: its values are signed.*unsigned"):
        load_image(path)


def test_what_pillow_would_read_wrong_or_not_at_all_is_refused_by_name(tmp_path: Path) -> None:
    with_alpha = np.dstack([COLOURS, COLOURS[..., :1]])
    with pytest.raises(ImageError, match=r"planes\.tif.*lie in planes.*side by side"):
        load_image(write_tiff(tmp_path / "planes.tif", COLOURS, photometric=2, tags=[(284, 2)]))
    with pytest.raises(ImageError, match=r"alpha\.tif.*multiplied by their alpha.*without alpha"):
        load_image(write_tiff(tmp_path / "alpha.tif", with_alpha, photometric=2, tags=[(338, 1)]))
    with pytest.raises(ImageError, match=r"ten\.tif: a TIFF whose kind of pixels is not read; accepted are"):
        load_image(write_tiff(tmp_path / "ten.tif", GREY, tags=[(258, 10)]))


def test_pixels_have_one_hash_however_they_are_stored(tmp_path: Path) -> None:
    eight = (COLOURS >> 4).astype(np.uint8)
    hashes = {stored(write_image(tmp_path / f"a.{suffix}", eight)).pixels_sha256() for suffix in ("png", "bmp", "tif")}
    Image.fromarray(eight).save(tmp_path / "small.png", compress_level=9)
    Image.fromarray(np.rot90(eight)).save(tmp_path / "turned.png", exif=_orientation(6))
    hashes |= {stored(tmp_path / name).pixels_sha256() for name in ("small.png", "turned.png")}
    assert len(hashes) == 1
    deep = [write_deep_png(tmp_path / "g.png", GREY), write_tiff(tmp_path / "g.tif", GREY, order=">")]
    deep.append(write_deep_png(tmp_path / "rgb.png", np.dstack([GREY] * 3)))
    assert len({stored(path).pixels_sha256() for path in deep}) == 1
    reshaped = write_image(tmp_path / "other.png", eight.reshape(8, 6, 3))
    assert stored(reshaped).pixels_sha256() not in hashes


def _orientation(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif.tobytes()
