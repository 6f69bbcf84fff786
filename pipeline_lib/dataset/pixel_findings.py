"""What a person should know of the images' pixels: value range, depth, colour, size, constant images, pages."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd

from data_contracts.config import PreprocessingConfig
from data_contracts.validation import Finding
from pipeline_lib.dataset.reading import auto_value_ranges, mixed_depths


def pixel_findings(category: str, rows: pd.DataFrame, preprocessing: PreprocessingConfig) -> Iterator[Finding]:
    """The findings on the images of one category (rows of a dataset index that could be decoded)."""
    finding = partial(Finding, category=category)
    train = rows[rows["split"] == "train"]
    if preprocessing.value_range == "auto":
        for message in mixed_depths(train).values():
            yield finding(
                severity="error",
                code="mixed_depth",
                message=message,
                advice="Save all images of a category with the same bit depth; a run stops here.",
            )
    is_deep = train["bit_depth"] > 8
    if is_deep.any() and preprocessing.value_range == "auto" and is_deep.all():
        (value_range,) = auto_value_ranges(train).values()
        yield finding(
            severity="note",
            code="value_range",
            message=f"its training images have {_listed(train['bit_depth'])} bits a value and hold values up to "
            f"{int(train['max_value'].max())}: 0 to {value_range} becomes black to white, in new images too",
            advice="Where the camera gives another range, set preprocessing.value_range to its largest value.",
        )
    for row in rows[rows["is_constant"] == 1].itertuples():
        what = "all black" if not row.max_value else "of one colour alone"
        yield finding(
            severity="warning",
            code="constant_image",
            path=str(row.path),
            message=f"the image is {what}: it shows nothing",
            advice="Take it again, or remove it: in training it makes dark parts normal.",
        )
    yield from _differences(rows)
    several = rows[rows["pages"] > 1]
    if len(several):
        first = several.iloc[0]
        yield finding(
            severity="note",
            code="several_pages",
            path=str(first["path"]),
            message=f"{len(several)} files hold several pages, this one {first['pages']}; the first of each is read",
            advice="Save pages that are images of their own as files of their own.",
        )


def _differences(rows: pd.DataFrame) -> Iterator[Finding]:
    """Where test images are of another kind than all training images."""
    kinds = {
        "bit depth": rows["bit_depth"].map(lambda bits: f"{bits} bits"),
        "colour": rows["is_grey"].map({1: "grey", 0: "colour"}),
        "size": rows["width"].astype(str) + "x" + rows["height"].astype(str),
    }
    is_train = rows["split"] == "train"
    for name, kind in kinds.items():
        of_train = kind[is_train].unique()
        differs = ~is_train & ~kind.isin(of_train)
        if len(of_train) == 1 and differs.any():
            yield Finding(
                severity="warning",
                code="train_test_differ",
                category=str(rows["category"].iloc[0]),
                path=str(rows.loc[differs, "path"].iloc[0]),
                message=f"{int(differs.sum())} of {int((~is_train).sum())} test images, this one first, differ from "
                f"all training images in {name}: {_listed(kind[differs])}, not {of_train[0]}",
                advice="Take training and test images the same way: what differs in every pixel is no defect.",
            )


def _listed(values: pd.Series) -> str:
    return ", ".join(str(value) for value in values.value_counts().index[:3])
