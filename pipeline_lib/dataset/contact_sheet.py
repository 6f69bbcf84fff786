"""A data set in one picture: for each category a good image, and below it a defective one with its masks outlined."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from scipy import ndimage

from data_contracts.config import Layout, PreprocessingConfig
from data_contracts.errors import DatasetError, ImageError
from data_contracts.settings import Reading
from pipeline_lib.dataset.ground_truth import category_defects, read_mask_channels, union_mask
from pipeline_lib.dataset.images import load_image
from pipeline_lib.dataset.layout import UNANNOTATED
from pipeline_lib.dataset.reading import decide_reading, without_brighter

OUTLINE = (255, 64, 64)
TITLE_PX = 22
GAP_PX = 6


def contact_sheet(
    index: pd.DataFrame, root: Path, *, layout: Layout, cell_px: tuple[int, int] = (240, 200)
) -> Image.Image:
    """A column a category: a good training image above, below it a defective test image, if there is one with a mask.

    index: a dataset index; cell_px: (width, height) of each picture.
    Raises DatasetError for an empty index, and for training images of a category that differ in bit depth.
    """
    categories = list(dict.fromkeys(index.category))
    if not categories:
        raise DatasetError(f"{root} has no images to show")
    reading = decide_reading(index, PreprocessingConfig())
    index = without_brighter(index, reading.value_ranges)
    width, height = cell_px
    sheet = Image.new("RGB", (len(categories) * (width + GAP_PX) + GAP_PX, 2 * (height + TITLE_PX) + GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for column, category in enumerate(categories):
        rows = index[(index.category == category) & (index.problem == "")]
        left = GAP_PX + column * (width + GAP_PX)
        good = rows[(rows.split == "train") & (rows.label == "good")]
        bad = _examples(rows[(rows.split == "test") & (rows.label_index == 1)])
        for line, (chosen, title) in enumerate([(good, category), (bad, "")]):
            if not len(chosen):
                continue
            row = chosen.iloc[len(chosen) // 2].to_dict()
            top = line * (height + TITLE_PX)
            draw.text((left, top + 4), title or str(row["label"]), fill="black")
            picture = outlined(row, root, reading, layout=layout) if line else _picture(row, root, reading)
            picture.thumbnail((width, height))
            sheet.paste(picture, (left, top + TITLE_PX))
    return sheet


def _examples(defective: pd.DataFrame) -> pd.DataFrame:
    """Those that show what a defect is: with a mask, or at least with a name."""
    masked = defective[defective.n_mask_channels > 0]
    return masked if len(masked) else defective[defective.label != UNANNOTATED]


def outlined(row: Mapping[str, object], root: Path, reading: Reading, *, layout: Layout) -> Image.Image:
    """A test image (a row of the dataset index) with the outline of its masks, where they can be read."""
    path = Path(str(row["path"]))
    image = _picture(row, root, reading)
    category = str(row["category"])
    try:
        channels = read_mask_channels(
            root,
            category,
            str(row["label"]),
            path.stem,
            layout=layout,
            width=image.width,
            height=image.height,
            orientation=int(str(row["orientation"])),
            defects=category_defects(root, category, layout=layout),
        )
    except ImageError:
        return image
    mask = union_mask(channels, image.height, image.width) > 0
    thickness = max(1, min(image.size) // 120)
    edge = ndimage.binary_dilation(mask, iterations=thickness) & ~mask
    pixels = np.array(image)
    pixels[edge] = OUTLINE
    return Image.fromarray(pixels)


def _picture(row: Mapping[str, object], root: Path, reading: Reading) -> Image.Image:
    return load_image(root / str(row["path"]), reading.of(str(row["category"])))
