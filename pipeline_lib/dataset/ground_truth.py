"""Ground-truth masks: one boolean channel a defect region, read from PNG files by the data set's layout.

AutoVI's rule (that of the MVTec LOCO AD evaluator): one PNG is one channel, and the one value of its non-zero pixels
is the `pixel_value` of an entry in `defects_config.json`. Grey, RGB and RGBA are read; alpha is ignored, and of three
colours the largest counts. A file that holds several known values is one channel a value. A mask of MVTec AD is marked
where it is not 0, and one with values between black and white where it has half of its largest value or more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError
from scipy import ndimage

from data_contracts.config import Layout
from data_contracts.defects import DefectEntry
from data_contracts.errors import ConfigError, DatasetError, ImageError
from pipeline_lib.dataset.images import UPRIGHT, read_bytes, read_stored, swaps_sides, turned
from pipeline_lib.dataset.layout import DEFECTS_CONFIG, GOOD, RULES, category_directory, mask_files

SOFT_WHITE = 128
"""From this value on the largest of an MVTec mask is its white, and lower ones lie between black and white."""

MAX_COMPONENTS = 1000
"""Parts of one MVTec mask; each is held as a mask of its own."""

DefectWeights = Mapping[str, float] | str
"""Defect name -> weight (1 where it is not named), or the key of the entries that holds the weight."""


@dataclass(frozen=True)
class DefectChannel:
    """One annotated defect region of one image.

    `saturation_area_px` is the number of its pixels that must be found for a full score (Bergmann et al. 2022,
    MVTec LOCO AD, section 4.1).
    """

    defect_name: str
    mask: np.ndarray  # bool, (height, width)
    saturation_area_px: int
    saturation_was_zero: bool = False  # the configured threshold gave 0 pixels and 1 is used instead
    weight: float = 1.0


class MaskError(ImageError):
    """A mask file that cannot be used; `code` is the finding that the validation report gives it."""

    def __init__(
        self,
        message: str,
        *,
        code: Literal[
            "unreadable_image", "mask_size", "mask_value_unknown", "mask_empty", "mask_fragmented", "mask_alpha"
        ],
    ) -> None:
        super().__init__(message)
        self.code = code


# --- defects_config.json ---------------------------------------------------------------------------------------------


def load_defects_config(path: Path | str) -> list[DefectEntry]:
    """The entries of a `defects_config.json`: a JSON list of entries, or an object of defect name -> entry.

    Raises DatasetError, naming the file, the entry and the key, where it is missing, no JSON or has a bad value, and
    where two entries share a pixel value.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):
        content = [
            {"defect_name": name, **entry} if isinstance(entry, dict) else entry for name, entry in content.items()
        ]
    if not isinstance(content, list):
        raise DatasetError(f"{path} must hold a JSON list of entries, got {type(content).__name__}")
    entries = [_defect_entry(path, position, value) for position, value in enumerate(content)]
    by_value: dict[int, DefectEntry] = {}
    for entry in entries:
        other = by_value.setdefault(entry.pixel_value, entry)
        if other != entry:
            raise DatasetError(
                f"{path}: pixel_value {entry.pixel_value} stands for both {other.defect_name} and "
                f"{entry.defect_name}; give each entry a value of its own, 1 to 255"
            )
    return entries


def category_defects(root: Path | str, category: str, *, layout: Layout = "autovi") -> list[DefectEntry]:
    """The entries of one category; empty for layouts that have none. Raises DatasetError as `load_defects_config`."""
    if RULES[layout].masks != "named":
        return []
    return load_defects_config(category_directory(root, category, layout=layout) / DEFECTS_CONFIG)


def _defect_entry(path: Path, position: int, value: Any) -> DefectEntry:
    try:
        return DefectEntry.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        name = value.get("defect_name") if isinstance(value, dict) else None
        where = f"{path}, entry {position + 1}" + (f" ({name})" if name else "") + (f", key {key}" if key else "")
        got = "" if first["type"] == "missing" else f", got {str(first['input'])[:80]!r}"
        raise DatasetError(f"{where}: {first['msg']}{got}") from error


def defect_weight(entry: DefectEntry, weights: DefectWeights) -> float:
    """The weight of one entry's channels. Raises ConfigError for a key that the entry lacks, or no number >= 0."""
    if not isinstance(weights, str):
        return float(weights.get(entry.defect_name, 1.0))
    extra = entry.model_extra or {}
    if weights not in extra:
        have = ", ".join(sorted(extra)) or "no further keys"
        raise ConfigError(
            f"evaluation.defect_weights names the key {weights!r} of {DEFECTS_CONFIG}, but the entry of "
            f"{entry.defect_name} lacks it (it has {have}); add the key, or give a mapping of defect name to weight"
        )
    value = extra[weights]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"evaluation.defect_weights: {weights} of {entry.defect_name} in {DEFECTS_CONFIG} is {value!r}; "
            f"it must be a number of at least 0"
        )
    return float(value)


# --- masks -----------------------------------------------------------------------------------------------------------


def read_mask_channels(
    root: Path | str,
    category: str,
    folder: str,
    stem: str,
    *,
    layout: Layout = "autovi",
    width: int,
    height: int,
    orientation: int = UPRIGHT,
    defects: Sequence[DefectEntry] = (),
    defect_weights: DefectWeights | None = None,
) -> list[DefectChannel]:
    """The channels of the test image <category>/test/<folder>/<stem>, each of (height, width) pixels.

    `orientation` is the image's, 1 to 8, where its picture was turned by it (`read_mask_values`).

    autovi: a channel a mask file (a channel a value where a file holds several), by the entries in `defects`.
    mvtec: the 8-connected components of the mask, each saturated by its whole area, which makes sPRO the PRO of
    Bergmann et al. 2021. folder: none. Good images and images without a mask file have none either.

    Raises MaskError (an ImageError) for a mask that is unreadable, empty, of another size than the image, or holds a
    value that `defects` does not name; ConfigError for weights that `defects` does not hold.
    """
    rule = RULES[layout].masks
    if rule == "none" or folder == GOOD:
        return []
    by_name = None if isinstance(defect_weights, str) else defect_weights
    if rule == "marked" and by_name is None and defect_weights:
        raise ConfigError(
            f"evaluation.defect_weights names the key {defect_weights!r} of {DEFECTS_CONFIG}, which the layout "
            f"{layout} does not have; give a mapping of defect name to weight"
        )
    directory = category_directory(root, category, layout=layout)
    channels: list[DefectChannel] = []
    for path in mask_files(directory, folder, stem, layout=layout):
        values = read_mask_values(path, width=width, height=height, orientation=orientation)
        if rule == "marked":
            channels += mask_components(marked(values), folder, defect_weights=by_name, name=str(path))
        else:
            channels += channels_by_value(values, defects, defect_weights=defect_weights, name=str(path))
    return channels


def read_mask_values(path: Path | str, *, width: int, height: int, orientation: int = UPRIGHT) -> np.ndarray:
    """The values of a mask file as uint8 (height, width); 0 is no defect. Raises MaskError.

    width, height: of the picture as it is to be seen, which `orientation` made of the stored one. A mask that says no
    orientation was drawn on whichever of the two its sides fit; on the upright one where they fit both.
    """
    try:
        stored = read_stored(read_bytes(path), name=str(path))
        image = stored.upright()
    except ImageError as error:
        raise MaskError(str(error), code="unreadable_image") from error
    if stored.orientation == UPRIGHT and swaps_sides(orientation) and image.size == (height, width) != (width, height):
        image = turned(image, orientation)
    if image.size != (width, height):
        raise MaskError(
            f"mask {path} is {image.size[0]}x{image.size[1]} pixels, its image {width}x{height}; they must be equal",
            code="mask_size",
        )
    values = _pixel_values(image.convert("RGB") if image.mode in {"P", "PA"} else image)
    if values.size and values.min() == values.max() and _alpha_varies(image):
        raise MaskError(
            f"mask {path} has one colour, and the defect is drawn in its alpha channel, which is not read; save it as "
            f"grey: 0 for no defect",
            code="mask_alpha",
        )
    if values.dtype.kind not in "ui" or values.max(initial=0) > 255:
        raise MaskError(
            f"mask {path} holds the value {values.max()} (mode {image.mode}); pixel values are whole numbers from 0 to "
            f"255; save it as an 8-bit PNG",
            code="mask_value_unknown",
        )
    if not values.any():
        raise MaskError(f"mask {path} is empty: no pixel is above 0; mark the defect or remove it", code="mask_empty")
    return values.astype(np.uint8)


def marked(values: np.ndarray) -> np.ndarray:
    """Boolean: where the values (uint8, (height, width)) of a mask without names mark a defect.

    Wherever they are not 0; with a white of 128 or more, from half of it on, which cuts soft edges in their middle.
    """
    white = int(values.max(initial=0))
    return values >= max(1, (white + 1) // 2 if white >= SOFT_WHITE else 1)


def channels_by_value(
    values: np.ndarray, defects: Sequence[DefectEntry], *, defect_weights: DefectWeights | None = None, name: str
) -> list[DefectChannel]:
    """One channel for each non-zero value of `values` (uint8, (height, width)), by ascending value.

    Raises MaskError, naming the file `name`, for a value that no entry of `defects` has.
    """
    entries = {entry.pixel_value: entry for entry in defects}
    is_there = np.zeros(256, dtype=bool)
    is_there[values] = True
    found = [int(value) for value in np.flatnonzero(is_there) if value]
    if unknown := [value for value in found if value not in entries]:
        accepted = ", ".join(f"{value} ({entry.defect_name})" for value, entry in sorted(entries.items())) or "nothing"
        raise MaskError(
            f"mask {name} holds the value{'s' * (len(unknown) > 1)} {', '.join(map(str, unknown[:8]))} that "
            f"{DEFECTS_CONFIG} does not name (it names {accepted}); redraw the mask with one of these values, "
            f"or add an entry",
            code="mask_value_unknown",
        )
    return [_channel(values == value, entries[value], defect_weights or {}) for value in found]


def union_mask(channels: Sequence[DefectChannel], height: int, width: int) -> np.ndarray:
    """Boolean (height, width): pixels that any channel marks."""
    union = np.zeros((height, width), dtype=bool)
    for channel in channels:
        union |= channel.mask
    return union


def _channel(mask: np.ndarray, entry: DefectEntry, weights: DefectWeights) -> DefectChannel:
    area_px = int(mask.sum())
    threshold = entry.saturation_threshold
    wanted = int(threshold * area_px) if entry.relative_saturation else int(min(threshold, area_px))
    return DefectChannel(
        defect_name=entry.defect_name,
        mask=mask,
        saturation_area_px=entry.saturation_area_px(area_px),
        saturation_was_zero=wanted == 0,
        weight=defect_weight(entry, weights),
    )


def mask_components(
    mask: np.ndarray, defect_name: str, *, defect_weights: Mapping[str, float] | None = None, name: str
) -> list[DefectChannel]:
    """The 8-connected components of a boolean mask (height, width), each saturated by its whole area.

    Raises MaskError, naming the file `name`, for more than MAX_COMPONENTS: that is noise, not defects.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=int))
    if count > MAX_COMPONENTS:
        raise MaskError(
            f"mask {name} falls into {count} separate parts, at most {MAX_COMPONENTS} are read; clean it of specks "
            f"(a mask saved as JPEG has them)",
            code="mask_fragmented",
        )
    areas_px = np.bincount(labels.ravel(), minlength=count + 1)
    weight = float((defect_weights or {}).get(defect_name, 1.0))
    return [
        DefectChannel(defect_name, labels == number, int(areas_px[number]), weight=weight)
        for number in range(1, count + 1)
    ]


def _alpha_varies(image: Any) -> bool:
    if not image.has_transparency_data:
        return False
    low, high = image.convert("RGBA").getchannel("A").getextrema()
    return bool(low < high)


def _pixel_values(image: Any) -> np.ndarray:
    """Integer values, (height, width): the largest of the colours, without alpha; 16-bit white becomes 255."""
    if image.mode == "1":
        image = image.convert("L")
    values = np.array(image)
    if values.ndim == 3:
        n_colours = 1 if values.shape[2] == 2 else 3
        values = reduce(np.maximum, (values[..., colour] for colour in range(n_colours)))  # faster than max over them
    if values.dtype.itemsize > 1 and values.size and values.max() > 255 and not (values % 257).any():
        values = values // 257
    return values
