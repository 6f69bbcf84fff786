"""Values of more than 8 bits as a file holds them.

Pillow reads 16-bit grey whole, and of 16-bit colours the upper byte of each value alone. The lower byte is had by
decoding once more with the bytes taken in the other order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from data_contracts.errors import ImageError

SIXTEEN_BIT_GREY = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
"""Modes of Pillow."""

_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"L": "B", "B": "L"}
_COLOURS = ("RGB;16", "RGBA;16", "RGBX;16")
_GREY_AND_ALPHA = "LA;16B"


def is_deep(raw_mode: str) -> bool:
    """Whether Pillow's raw mode of a file's tile is one of more than 8 bits a value that `deep_values` reads."""
    return raw_mode.startswith(("I;16", "I;12", *_COLOURS)) or raw_mode == _GREY_AND_ALPHA


def raw_mode(image: Image.Image) -> str:
    """How Pillow is going to unpack an image that was opened and not decoded yet; empty where it has no tile."""
    tiles: Any = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) else args)


def deep_values(image: Image.Image, raw_mode: str, reopen: Callable[[], Image.Image]) -> np.ndarray:
    """The values of a file for whose raw mode `is_deep` says yes, without alpha: uint16 (height, width[, 3]).

    image: decoded; reopen: gives it anew, not decoded. Raises what Pillow raises.
    """
    if image.mode in SIXTEEN_BIT_GREY:
        return np.asarray(image).astype(np.uint16)
    if raw_mode == _GREY_AND_ALPHA:  # its four bytes are grey, upper and lower, and alpha
        four = np.asarray(_decoded_as(reopen(), "RGBA")).astype(np.uint16)
        return four[..., 0] << 8 | four[..., 1]
    kind, order = raw_mode[:-1], raw_mode[-1]
    low = _decoded_as(reopen(), kind + _OTHER_ORDER[_NATIVE if order == "N" else order])
    upper, lower = (np.asarray(one)[..., :3].astype(np.uint16) for one in (image, low))
    return upper << 8 | lower


def refuse_unclear_tiff(tags: Mapping[int, Any], name: str) -> None:
    """Raise ImageError for a TIFF (its tags) whose values Pillow takes for others: signed, and 16-bit colours in planes
    or multiplied by their alpha."""
    if 2 in tags.get(339, (1,)):
        raise ImageError(
            f"cannot use image {name}: its values are signed (SampleFormat 2), whose range is not known; save it with "
            "unsigned values"
        )
    is_deep_tiff = max(tags.get(258, (1,))) > 8
    if 1 in tags.get(338, ()) and is_deep_tiff:
        raise ImageError(
            f"cannot use image {name}: its 16-bit colours are multiplied by their alpha (ExtraSamples 1); save it "
            "without alpha"
        )
    if tags.get(284, 1) == 2 and is_deep_tiff:
        raise ImageError(
            f"cannot use image {name}: its 16-bit colours lie in planes (PlanarConfiguration 2); save it with the "
            "colours of a pixel side by side"
        )


def _decoded_as(image: Image.Image, raw_mode: str) -> Image.Image:
    tiles: Any = image.tile  # type: ignore[attr-defined]
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode) for tile in tiles
    ]
    image.load()
    return image
