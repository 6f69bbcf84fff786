"""The masks of an image from what was annotated on it: the picture that was drawn on is compared with the image.

The picture may have been the image as it is stored, before its orientation tag turns it, or a larger or smaller one of
the same shape. Anything else fits nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations.outlines import AnnotatedImage
from pipeline_lib.dataset.images import UPRIGHT, swaps_sides, turned

Size = tuple[int, int]

_SLACK_PX = 2  # tools let an outline end this far beyond the picture


@dataclass(frozen=True)
class DrawnOn:
    """How the picture that was drawn on becomes the image."""

    canvas: Size  # width and height of the image before the turn
    scale: tuple[float, float]  # from the picture to the canvas
    orientation: int  # the turn, 1 for none
    is_clear: bool = True  # False where it fits as stored and as turned


def annotated_masks(
    annotated: AnnotatedImage, file: Path, size: Size, orientation: int
) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """(name, bool mask (height, width)) of each defect, and what a person should look at.

    `size` is the width and height of the image as it is to be seen, `orientation` how it is stored.

    Raises DatasetError, naming the image and the annotation, where one of them cannot be used: then none is.
    """
    if annotated.unreadable:
        raise DatasetError(f"{file} is not marked: {'; '.join(annotated.unreadable)}")
    if not annotated.outlines:
        return [], []
    try:
        drawn = drawn_on(annotated.size, annotated.reach(), size, orientation)
    except DatasetError as error:
        raise DatasetError(f"{file} is not marked: {annotated.where} {error}") from error
    masks = []
    for outline in annotated.outlines:
        mask = outline.mask(*drawn.canvas, drawn.scale)
        if not mask.any():
            raise DatasetError(f"{file} is not marked: {outline.where}: {outline.name} marks none of its pixels")
        masks.append((outline.name, np.asarray(turned(Image.fromarray(mask), drawn.orientation))))
    if drawn.is_clear:
        return masks, []
    return masks, [
        f"{file}: {annotated.where} fits it both as stored and as turned by its orientation tag {orientation}; taken "
        "as drawn on the turned picture; look at the masks"
    ]


def drawn_on(said: Size | None, reach: tuple[float, float], upright: Size, orientation: int) -> DrawnOn:
    """Which picture was drawn on: the one with the side lengths that the annotation says, else that holds its outlines.

    Raises DatasetError where neither the image as it is to be seen nor as it is stored has this shape.
    """
    stored = upright[::-1] if swaps_sides(orientation) else upright
    sizes = {UPRIGHT: upright} if orientation == UPRIGHT else {UPRIGHT: upright, orientation: stored}
    if said is None:
        width, height = reach
        fitting = [t for t, size in sizes.items() if width <= size[0] + _SLACK_PX and height <= size[1] + _SLACK_PX]
        what = f"says no size, its outlines reach to {width:g}x{height:g}"
    else:
        fitting = [turn for turn, size in sizes.items() if size == said]
        fitting = fitting or [turn for turn, size in sizes.items() if _same_shape(said, size)]
        what = f"was drawn on a picture of {said[0]}x{said[1]} pixels"
    if not fitting:
        tag = "" if orientation == UPRIGHT else f", turned by its orientation tag {orientation}"
        raise DatasetError(
            f"{what}, the image has {upright[0]}x{upright[1]}{tag}; was it cut or turned afterwards? "
            "Annotate this image, or give the one that was annotated"
        )
    turn = fitting[0]
    canvas = sizes[turn]
    from_size = said or canvas
    scale = (canvas[0] / from_size[0], canvas[1] / from_size[1])
    return DrawnOn(canvas, scale, turn, is_clear=len(fitting) == 1)


def _same_shape(one: Size, other: Size) -> bool:
    """Whether both sides have one ratio, within a pixel of the smaller size."""
    small, large = sorted((one, other))
    ratio = max(large) / max(small)
    return all(abs(longer / ratio - side) <= 1 for side, longer in zip(small, large, strict=True))
