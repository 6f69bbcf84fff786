"""Anomaly maps as files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import ImageError
from pipeline_lib.maps.map_files import (
    MapScale,
    find_map,
    read_map,
    refuse_other_shape,
    resize_map,
    write_npy_map,
    write_png_map,
    write_scale,
    write_tiff_map,
)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def test_exact_formats_round_trip(tmp_path: Path, values: np.ndarray) -> None:
    write_tiff_map(tmp_path / "a.tiff", values)
    write_npy_map(tmp_path / "a.npy", values)
    for name in ("a.tiff", "a.npy"):
        again = read_map(tmp_path / name)
        assert again.dtype == np.float32
        assert np.array_equal(again, values)


def test_png_round_trips_to_half_a_step_in_the_category_scale(tmp_path: Path, values: np.ndarray) -> None:
    maps = [values, 3 * values + 1]
    scale = MapScale.of_maps(maps)
    write_scale(tmp_path, scale)
    written = json.loads((tmp_path / "scale.json").read_text())
    assert written == {"offset": scale.offset, "step": scale.step}
    for i, own in enumerate(maps):
        write_png_map(tmp_path / f"{i}.png", own, scale=scale)
        again = scale.offset + scale.step * read_map(tmp_path / f"{i}.png").astype(np.float64)
        assert abs(again - own).max() <= scale.step / 2 + 1e-6
    raw = np.stack([read_map(tmp_path / f"{i}.png") for i in range(2)])
    assert (raw.min(), raw.max()) == (0, 65535)
    assert raw[0].max() < 65535  # not stretched to its own range


def test_a_constant_category_has_a_scale(tmp_path: Path) -> None:
    scale = MapScale.of_maps([np.full((2, 2), 3.0)])
    assert (scale.offset, scale.step) == (3, 0)
    assert scale.to_png(np.full((2, 2), 3.0)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ImageError, match="at least one map"):
        MapScale.of_maps([])


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.png", np.array([[0, 255], [7, 8]], np.uint8)),
        ("a.png", np.array([[0, 65535], [256, 8]], np.uint16)),
        ("a.tif", np.array([[0, 65535], [256, 8]], np.uint16)),
        ("a.tiff", np.array([[-5, 70000], [256, 8]], np.int32)),
        ("a.npy", np.array([[0, 65535], [256, 8]], np.uint64)),
        ("a.npy", np.array([[0.5, -1], [2, 8]], np.float64)),
        ("a.npy", np.array([[0.5, -1], [2, 8]], np.float16)),
    ],
)
def test_raw_values_are_read(tmp_path: Path, name: str, array: np.ndarray) -> None:
    path = tmp_path / name
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)
    again = read_map(path)
    assert again.dtype == np.float32
    assert np.array_equal(again, array)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("a.png", np.zeros((4, 4, 3), np.uint8), "mode RGB"),
        ("a.npy", np.zeros((4, 4, 3), np.float32), r"\(height, width\), this one \(4, 4, 3\)"),
        ("a.npy", np.zeros((0, 4), np.float32), r"this one \(0, 4\)"),
        ("a.npy", np.zeros((4, 4), np.complex64), "real numbers, this one complex64"),
        ("a.npy", np.array([[1, np.nan]]), "1 of 2 values are NaN"),
        ("a.npy", np.array([[1, 1e300]]), "beyond float32"),
        ("a.tiff", np.array([[1, np.inf]], np.float32), "infinite"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str, array: np.ndarray, said: str) -> None:
    path = tmp_path / name
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)
    with pytest.raises(ImageError, match=f"{re.escape(str(path))}.*{said}"):
        read_map(path)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.npy"])
def test_broken_and_missing_files_are_named(tmp_path: Path, name: str, values: np.ndarray) -> None:
    path = tmp_path / name
    with pytest.raises(ImageError, match="cannot be read"):
        read_map(path)
    path.write_bytes(b"not a map")
    with pytest.raises(ImageError, match=re.escape(str(path))):
        read_map(path)
    if name == "a.npy":
        write_npy_map(path, values)
    else:
        write_tiff_map(path, values) if name == "a.tiff" else write_png_map(path, values, scale=MapScale(0, 1))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageError, match=re.escape(str(path))):
        read_map(path)


def test_several_frames_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    image = Image.fromarray(values)
    image.save(tmp_path / "a.tiff", save_all=True, append_images=[image])
    with pytest.raises(ImageError, match=r"2 frame\(s\)"):
        read_map(tmp_path / "a.tiff")


def test_maps_are_found_by_stem(tmp_path: Path, values: np.ndarray) -> None:
    directory = tmp_path / "cat" / "test" / "bad"
    with pytest.raises(ImageError, match=r"no anomaly map for cat/test/bad/0001\.x.*no such directory"):
        find_map(tmp_path, "cat", "bad", "0001.x")
    directory.mkdir(parents=True)
    for suffix in (".png", ".tif", ".tiff", ".npy"):
        (directory / f"0001.x{suffix}").write_bytes(b"")
        assert find_map(tmp_path, "cat", "bad", "0001.x").suffix == suffix
        (directory / f"0001.x{suffix}").rename(directory / f"0003{suffix}")
    with pytest.raises(
        ImageError, match=r"several maps of one image: 0003\.npy, 0003\.tiff, 0003\.tif, 0003\.png; keep"
    ):
        find_map(tmp_path, "cat", "bad", "0003")
    with pytest.raises(ImageError, match=r"for 0002\.npy, 0002\.tiff, 0002\.tif, 0002\.png"):
        find_map(tmp_path, "cat", "bad", "0002")


def test_nothing_that_cannot_be_read_is_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="finite"):
        write_npy_map(tmp_path / "a.npy", np.array([[np.nan]]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("height", "width"), [(48, 64), (6, 8), (7, 8), (47, 64), (23, 32), (480, 640), (1, 1)])
def test_a_map_of_the_images_proportions_but_for_a_pixel_fits(height: int, width: int) -> None:
    refuse_other_shape(np.zeros((height, width)), 48, 64, name="a.npy")


@pytest.mark.parametrize(
    ("height", "width", "said"), [(64, 48, "It looks transposed"), (64, 64, "64 wide and 64 high")]
)
def test_a_map_of_other_proportions_is_refused(height: int, width: int, said: str) -> None:
    with pytest.raises(ImageError, match=rf"a\.npy: .*{said}.*--stretch-maps") as refused:
        refuse_other_shape(np.zeros((height, width)), 48, 64, name="a.npy")
    assert ("transposed" in str(refused.value)) == (height > width)


def test_resizing_is_bilinear_without_aligned_corners() -> None:
    small = np.array([[0, 4], [8, 12]], np.float32)
    expected = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    assert resize_map(small, 4, 4).tolist() == expected
    assert resize_map(small, 3, 5).shape == (3, 5)
    assert resize_map(small, 2, 2) is small
