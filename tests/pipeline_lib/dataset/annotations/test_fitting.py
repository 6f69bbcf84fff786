"""What an annotation says of its image is compared with the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations.drawing import Bitmap, edge_box
from pipeline_lib.dataset.annotations.fitting import annotated_masks, drawn_on
from pipeline_lib.dataset.annotations.outlines import AnnotatedImage
from pipeline_lib.dataset.images import TURNS

FILE = Path("nok/b1.jpg")


def marked(annotated: AnnotatedImage, size: tuple[int, int], orientation: int = 1) -> np.ndarray:
    ((_, mask),), _ = annotated_masks(annotated, FILE, size, orientation)
    return mask


def annotated(size: tuple[int, int] | None = (30, 20), box: tuple[float, ...] = (4, 2, 10, 6)) -> AnnotatedImage:
    image = AnnotatedImage("b1.jpg", "all.json", size)
    image.add("dent", [edge_box(*box)], "all.json, annotations 7")
    return image


@pytest.mark.parametrize("orientation", TURNS)
def test_an_outline_is_turned_where_the_stored_picture_was_drawn_on(orientation: int) -> None:
    stored = np.zeros((20, 30), dtype=bool)
    stored[2:8, 4:14] = True
    expected = np.asarray(Image.fromarray(stored).transpose(TURNS[orientation]))
    if orientation > 4:
        np.testing.assert_array_equal(marked(annotated(), (20, 30), orientation), expected)
        upright = annotated((20, 30), (2, 4, 6, 10))  # on the turned picture: as it is
        assert marked(upright, (20, 30), orientation)[4:14, 2:8].all()
    else:
        mask, doubt = annotated_masks(annotated(), FILE, (30, 20), orientation)
        np.testing.assert_array_equal(mask[0][1], stored)  # tools show the turned picture
        assert f"both as stored and as turned by its orientation tag {orientation}" in doubt[0]


def test_outlines_and_pixels_are_scaled_where_both_sides_agree() -> None:
    halved = marked(annotated(), (15, 10))
    assert halved.sum() == 5 * 3
    assert halved[1:4, 2:7].all()
    assert marked(annotated((31, 21)), (15, 10)).any()  # halved and rounded down
    pixels = AnnotatedImage("b1.jpg", "a.json", (30, 20))
    pixels.add("dent", [Bitmap(np.ones((6, 10), dtype=bool), 4, 2)], "a.json")
    np.testing.assert_array_equal(marked(pixels, (15, 10)), halved)
    both = marked(annotated((60, 40), (8, 4, 20, 12)), (20, 30), 6)  # halved, and stored turned
    np.testing.assert_array_equal(both, marked(annotated(), (20, 30), 6))


@pytest.mark.parametrize(
    ("said", "size", "orientation", "message"),
    [
        ((30, 20), (30, 25), 1, r"drawn on a picture of 30x20 pixels, the image has 30x25; was it cut"),
        ((30, 20), (20, 30), 1, r"30x20 pixels, the image has 20x30; was it"),
        ((30, 20), (40, 20), 6, r"40x20, turned by its orientation tag 6"),
        (None, (10, 20), 1, r"says no size, its outlines reach to 14x8, the image has 10x20"),
    ],
)
def test_a_picture_of_another_shape_fits_nowhere(
    said: tuple[int, int] | None, size: tuple[int, int], orientation: int, message: str
) -> None:
    with pytest.raises(DatasetError, match=rf"nok/b1.jpg is not marked: all.json .*{message}"):
        marked(annotated(said), size, orientation)


def test_without_a_size_the_outlines_tell_which_picture_was_drawn_on() -> None:
    assert drawn_on(None, (29, 8), (20, 30), 6).orientation == 6
    assert drawn_on(None, (8, 29), (20, 30), 6).orientation == 1
    assert not drawn_on(None, (8, 8), (20, 30), 6).is_clear


def test_an_outline_that_marks_nothing_keeps_the_others_out_too() -> None:
    image = annotated()
    image.add("dent", [edge_box(40, 30, 5, 5)], "all.json, annotations 8")
    with pytest.raises(DatasetError, match=r"all\.json, annotations 8: dent marks none of its pixels"):
        marked(image, (30, 20))
