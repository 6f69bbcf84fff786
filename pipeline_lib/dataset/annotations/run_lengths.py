"""COCO's run lengths: how many pixels are unmarked, marked, unmarked..., down the columns from the left one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.images import MAX_PIXELS

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10  # a character is 48 + 5 bits of a number + 32 where more bits follow


def decode(segmentation: dict[str, Any]) -> np.ndarray:
    """bool (height, width) of {"size": [height, width], "counts": numbers, or the string that pycocotools makes}.

    Raises DatasetError for other counts, and for a sum of them that is not height * width.
    """
    height, width = (int(side) for side in segmentation["size"])
    if height * width > MAX_PIXELS:
        raise DatasetError(f"run lengths of {height} * {width} pixels; at most {MAX_PIXELS} are read")
    counts = segmentation["counts"]
    runs = _uncompressed(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise DatasetError(f"run lengths that add up to {sum(runs)}, not {height} * {width} pixels")
    is_marked = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_marked, runs).reshape(width, height).T


def _uncompressed(text: str) -> Sequence[int]:
    """The numbers of a compressed string: from the fourth on, each is the difference to the one before the last."""
    runs: list[int] = []
    number, shift = 0, 0
    for character in text.encode("ascii"):
        bits = character - _FIRST
        if not 0 <= bits < 2 * _MORE:
            raise DatasetError(f"run lengths with the character {chr(character)!r}")
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _SIGN:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise DatasetError("run lengths that break off")
    return runs
