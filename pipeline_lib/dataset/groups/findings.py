"""What a check of a data set says of near copies: test images that training or the other half has nearly seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from data_contracts.validation import Finding, FindingCode
from pipeline_lib.dataset.groups.assignment import category_thumbnails, group_by_image, large_groups
from pipeline_lib.dataset.groups.halves import half_of
from pipeline_lib.dataset.groups.near_copies import NearCopy, near_copies

_GROUP_THEM = "name it in dataset.group: a pattern in the file names, a file, or found (--set dataset.group=found)."
_SPLIT = (
    f"It makes figures too good. If they show one part, place or tile, split training and test by it, and {_GROUP_THEM}"
)
_HALVES = (
    "The test set is halved by the images' SHA-256; settings are chosen on the development half and reported on the "
    "other, to which they are then not new, and intervals count the two images as independent. If they show one part, "
    f"place or tile, {_GROUP_THEM} A group is in one half."
)


def copy_findings(
    readable: pd.DataFrame, thumbnails: Mapping[str, np.ndarray], groups: pd.DataFrame | None
) -> Iterator[Finding]:
    """Near copies across training and test, and across the halves of test, each test image with the one nearest to it.

    readable: the readable rows of a dataset index; groups: IMAGE_GROUPS, None without dataset.group. Copies that are
    equal in every pixel are a finding of their own.
    """
    group_of = {} if groups is None else group_by_image(groups)
    for _, rows in readable.groupby("category", sort=True):
        rows = rows.reset_index(drop=True)
        same = rows["pixels_sha256"].tolist()
        alike = near_copies(category_thumbnails(rows["image_id"], thumbnails))
        alike = [pair for pair in alike if same[pair.first] != same[pair.second]]
        parts = [
            half_of(digest, group_of.get(image_id)) if split == "test" else "training"
            for image_id, digest, split in zip(rows["image_id"], rows["sha256"], rows["split"], strict=True)
        ]
        seen = _nearest(alike, parts, of=("development", "report"), to="training")
        yield from _findings(rows, seen, "near_copy_across_splits", "of training", _SPLIT)
        clean = "" if seen else "Between training and test no near copies were found. "
        seen = _nearest(alike, parts, of=("report",), to="development")
        where = "of the test set, in its other half,"
        yield from _findings(rows, seen, "near_copy_across_halves", where, f"{clean}{_HALVES}")
    for sentence in [] if groups is None else large_groups(readable, groups):
        yield Finding(
            severity="warning",
            code="large_group",
            message=sentence,
            advice="Look whether the pattern, the file or the chain of near copies joins what is not one part.",
        )


def _nearest(pairs: list[NearCopy], parts: list[str], *, of: tuple[str, ...], to: str) -> dict[int, tuple[int, float]]:
    """Position of an image of one part -> (position of the image of the other part nearest to it, correlation)."""
    found: dict[int, tuple[int, float]] = {}
    for first, second, correlation in pairs:
        for one, other in ((first, second), (second, first)):
            if parts[one] in of and parts[other] == to and correlation > found.get(one, (0, 0.0))[1]:
                found[one] = other, correlation
    return found


def _findings(
    rows: pd.DataFrame, nearest: Mapping[int, tuple[int, float]], code: FindingCode, where: str, advice: str
) -> Iterator[Finding]:
    for one, (other, correlation) in sorted(nearest.items(), key=lambda item: -item[1][1]):
        yield Finding(
            severity="warning",
            code=code,
            category=str(rows["category"][one]),
            path=str(rows["path"][one]),
            message=f"nearly the same as {rows['path'][other]} {where} (correlation {correlation:.2f})",
            advice=advice,
        )
