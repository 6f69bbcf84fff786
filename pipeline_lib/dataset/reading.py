"""How a data set's image files become pixels: one value range for each category, decided once from its training images.

The range is the value that becomes white. It is never an image's own: an image that is brighter is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from data_contracts.config import PreprocessingConfig
from data_contracts.errors import DatasetError
from data_contracts.settings import Reading
from pipeline_lib.dataset.images import brighter

BIT_DEPTHS = (8, 10, 12, 14, 16)
_SHOWN = 3


def decide_reading(
    index: pd.DataFrame, preprocessing: PreprocessingConfig, *, mixed: Literal["refused", "kept"] = "refused"
) -> Reading:
    """What `preprocessing` means for the categories of `index`, which holds their training images.

    auto: the smallest of BIT_DEPTHS that holds a category's largest value, and what a TIFF's BitsPerSample says where
    that is less than 16; 8-bit files stay 255, and so does a category without training images: nothing is guessed.
    Raises DatasetError where a category's training images differ in depth, unless mixed depths are kept: then the
    deepest counts.
    """
    orientation, value_range = preprocessing.orientation, preprocessing.value_range
    if value_range == "container":
        return Reading(orientation=orientation)
    train = index[(index["split"] == "train") & (index["problem"] == "")]
    if value_range != "auto":
        return Reading(orientation=orientation, value_ranges=dict.fromkeys(sorted(set(index["category"])), value_range))
    if mixed == "refused":
        for message in mixed_depths(train).values():
            raise DatasetError(message)
    untrained = dict.fromkeys(sorted(set(index["category"])), 255)
    return Reading(orientation=orientation, value_ranges=untrained | auto_value_ranges(train))


def auto_value_ranges(train: pd.DataFrame) -> dict[str, int]:
    """category -> value range of its training images (rows of a dataset index)."""
    ranges = {}
    for category, rows in train.groupby("category", sort=True):
        by_value = max(int(rows["max_value"].max()).bit_length(), 1)
        said = rows.loc[rows["bit_depth"] < BIT_DEPTHS[-1], "bit_depth"]
        needed = max(by_value, int(said.max()) if len(said) else 0)
        bits = next(depth for depth in BIT_DEPTHS if depth >= needed)
        ranges[str(category)] = 2**bits - 1
    return ranges


def mixed_depths(train: pd.DataFrame) -> dict[str, str]:
    """category -> what is said of training images of which some have 8 bits and some more."""
    found = {}
    for category, rows in train.groupby("category", sort=True):
        is_deep = rows["bit_depth"] > BIT_DEPTHS[0]
        if is_deep.any() and not is_deep.all():
            parts = [
                f"{len(some)} with {bits} bits ({', '.join(some['path'].head(_SHOWN))}{', ...' * (len(some) > _SHOWN)})"
                for bits, some in rows.groupby("bit_depth", sort=True)
            ]
            found[str(category)] = (
                f"the training images of {category} differ in bit depth: {'; '.join(parts)}; one value range cannot be "
                "told for all: save them alike, or set preprocessing.value_range to the number that is white in the "
                "deeper ones"
            )
    return found


def without_brighter(index: pd.DataFrame, value_ranges: Mapping[str, int]) -> pd.DataFrame:
    """The index with a problem for every image that goes beyond its category's range; all others as they are."""
    limits = index["category"].map(dict(value_ranges)).fillna(2**16 - 1)
    too_bright = (index["problem"] == "") & (index["bit_depth"] > BIT_DEPTHS[0]) & (index["max_value"] > limits)
    if not too_bright.any():
        return index
    index = index.copy()
    index.loc[too_bright, "problem"] = [
        brighter(str(path).rsplit("/", 1)[-1], int(value), int(limit))
        for path, value, limit in zip(
            index.loc[too_bright, "path"], index.loc[too_bright, "max_value"], limits[too_bright], strict=True
        )
    ]
    return index
