"""Which annotated image is which file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.dataset.annotations.matching import match_images, same_name
from pipeline_lib.dataset.annotations.outlines import AnnotatedImage


def annotated(*paths: str) -> list[AnnotatedImage]:
    return [AnnotatedImage(path, "a.json", unreadable=["x"]) for path in paths]


@pytest.mark.parametrize(
    ("path", "file", "is_it"),
    [
        ("000.jpg", "/d/nok/000.png", True),
        ("C:/old/000.JPG", "/d/nok/000.png", True),
        ("000", "/d/nok/000.jpg", True),
        ("part.01", "/d/nok/part.01.png", True),
        ("part.01", "/d/nok/part.png", False),
        ("images/a1b2c3d4-000.jpg", "/d/nok/000.jpg", True),
        ("a1b2c3d4-000.jpg", "/d/nok/a1b2c3d4-000.jpg", True),
        ("Bru\u0308cke.jpg", "/d/nok/Br\u00fccke.jpg", True),
        ("1000.jpg", "/d/nok/000.jpg", False),
    ],
)
def test_names_are_compared_without_ending_and_upload_prefix(path: str, file: str, is_it: bool) -> None:
    (image,) = annotated(path)
    matches = match_images([image], [Path(file)])
    assert matches.by_file == ({Path(file): image} if is_it else {})
    assert matches.without_file == ([] if is_it else [image])


def test_directories_decide_between_images_of_one_name() -> None:
    images = annotated("cam1/000.jpg", "cam2/000.jpg")
    first, second = images
    assert match_images(images, [Path("/d/cam2/000.jpg")]).by_file == {Path("/d/cam2/000.jpg"): second}
    assert match_images(images, [Path("/d/cam2/000.jpg")]).without_file == [first]
    flat = match_images(images, [Path("/d/nok/000.jpg")])
    assert (flat.by_file, flat.unclear) == ({}, {Path("/d/nok/000.jpg"): images})
    deep = annotated("line1/cam/000.jpg", "line2/cam/000.jpg")
    assert match_images(deep, [Path("/d/line1/cam/000.jpg")]).by_file == {Path("/d/line1/cam/000.jpg"): deep[0]}


def test_an_image_of_another_directory_is_not_meant_even_alone() -> None:
    images = annotated("cam1/001.jpg", "cam2/000.jpg")
    matches = match_images(images, [Path("/d/cam1/000.jpg"), Path("/d/cam1/001.jpg")])
    assert matches.by_file == {Path("/d/cam1/001.jpg"): images[0]}
    assert matches.without_file == [images[1]]


def test_a_name_that_was_found_is_not_found_again_without_its_prefix() -> None:
    images = annotated("a1b2c3d4-000.jpg")
    files = [Path("/d/000.jpg"), Path("/d/a1b2c3d4-000.jpg")]
    assert match_images(images, files).by_file == {files[1]: images[0]}
    two = annotated("a1b2c3d4-000.jpg", "0f0f0f0f-000.jpg")
    assert match_images(two, files[:1]).unclear == {files[0]: two}


def test_the_inner_name_of_a_file_agrees_with_its_own() -> None:
    assert same_name("..\\nok\\b1.png".replace("\\", "/"), "b1")
    assert same_name("a1b2c3d4-b1.png", "b1")
    assert same_name("B1.PNG", "b1")
    assert not same_name("b2.png", "b1")
