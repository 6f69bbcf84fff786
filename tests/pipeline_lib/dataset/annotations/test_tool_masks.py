"""The masks equal those of labelme and pycocotools in every pixel; tests/drawn_masks/make.py has written them down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.dataset.annotations.drawing import edge_box
from pipeline_lib.dataset.annotations.fitting import annotated_masks
from pipeline_lib.dataset.annotations.reading import read_annotations

DRAWN = Path(__file__).parents[3] / "drawn_masks"
MASKS: dict[str, dict[str, list[int]]] = json.loads((DRAWN / "masks.json").read_text())
SIZE = (48, 40)


def unpacked(runs: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(SIZE[::-1])


@pytest.mark.parametrize("file", MASKS)
def test_each_mask_equals_that_of_its_tool(file: str) -> None:
    (annotated,) = read_annotations(DRAWN / file).images
    masks, doubt = annotated_masks(annotated, Path(annotated.path), SIZE, 1)
    assert not doubt
    assert [name for name, _ in masks] == list(MASKS[file])
    for name, mask in masks:
        np.testing.assert_array_equal(mask, unpacked(MASKS[file][name]), err_msg=name)


def test_boxes_of_both_rules_have_the_pixels_that_their_numbers_say() -> None:
    mask = edge_box(100, 100, 5, 5).draw(200, 150, (1.0, 1.0))
    assert mask.sum() == 25
    assert mask[100:105, 100:105].all()
    (annotated,) = read_annotations(DRAWN / "labelme.json").images
    (rectangle,) = (outline for outline in annotated.outlines if outline.name == "07")
    assert rectangle.mask(*SIZE).sum() == 10 * 10  # from 10, 5 to 19, 14, both marked
