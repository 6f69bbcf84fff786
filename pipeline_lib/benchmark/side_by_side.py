"""The same test images under several experiments, side by side: those found best and worst, and where they differ.

Scores of different banks have no common unit. What is compared is how many standard deviations of the good test
images' scores an image lies above their mean, by the same experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.config import Layout
from data_contracts.errors import DatasetError
from data_contracts.manifests import Cells
from data_contracts.settings import BY_TYPE, ImageReading
from pipeline_lib.maps.visualize import map_scale
from pipeline_lib.report.gallery import Painter

PICTURES_BYTES = 2_600_000
"""All pictures of a page together; as data: URIs they take a third more."""

KINDS = {
    "best": "defective, and furthest above the good images on average",
    "worst": "defective, and closest to or below the good images on average",
    "false alarm": "good, and furthest above the other good images on average",
    "most different": "judged most differently by the experiments",
}


@dataclass(frozen=True)
class ScoredMaps:
    """One category of one experiment: maps float32 (image, height, width), and scores (schema IMAGE_SCORES)."""

    maps: np.ndarray
    scores: pd.DataFrame
    sigma_px: float = 0.0
    reading: ImageReading = BY_TYPE  # of the images' files
    cells: Cells | None = None  # where those of the maps look


@dataclass(frozen=True)
class Panel:
    """One experiment's map over the image."""

    experiment: str
    deviations: float  # standard deviations of the good images' scores above their mean
    picture: bytes  # WebP


@dataclass(frozen=True)
class Case:
    """One test image, with its mask outlined, and the maps of the experiments."""

    category: str
    kind: str
    image_id: str
    label: str
    size_px: tuple[int, int]
    picture: bytes
    panels: tuple[Panel, ...]


def category_cases(
    experiments: Mapping[str, ScoredMaps], root: Path, *, layout: Layout, n_categories: int = 1
) -> list[Case]:
    """The cases of one category: the first that fits for each of KINDS, each image once.

    experiments: name -> maps and scores of the same test images; root: of the data set; n_categories: how many share
    the page. Images that cannot be read are left out. Empty where the experiments have no image in common.
    """
    deviations = {name: good_deviations(own.scores) for name, own in experiments.items()}
    table = pd.DataFrame(deviations).dropna()
    if table.empty:
        return []
    first = next(iter(experiments.values())).scores.set_index("image_id")
    chosen = choose_cases(table, first.label_index.reindex(table.index).to_numpy())
    max_bytes = PICTURES_BYTES // (n_categories * len(KINDS) * (len(experiments) + 1))
    painters = {
        name: Painter(
            root,
            str(own.scores.category.iloc[0]),
            layout,
            own.sigma_px,
            map_scale(own.maps, own.scores.label_index.to_numpy()),
            max_bytes,
            own.reading,
            own.cells,
        )
        for name, own in experiments.items()
    }
    cases = []
    for kind, image_id in chosen.items():
        examples = {}
        for name, own in experiments.items():
            position = int(np.flatnonzero(own.scores.image_id.to_numpy() == image_id)[0])
            row = own.scores.iloc[position].to_dict()
            try:
                examples[name] = painters[name].example(row, own.maps[position])
            except DatasetError:
                continue
        shown = [(name, example) for name, example in examples.items() if example.image]
        if shown:
            one = shown[0][1]
            panels = tuple(Panel(name, float(table[name][image_id]), e.heat) for name, e in shown)
            cases.append(
                Case(painters[shown[0][0]].category, kind, image_id, one.label, one.size_px, one.image, panels)
            )
    return cases


def good_deviations(scores: pd.DataFrame) -> pd.Series:
    """Image id -> how many standard deviations of the good images its score lies above their mean.

    NaN without two good images of different scores.
    """
    good = scores.loc[scores.label_index == 0, "score"]
    spread = float(good.std(ddof=0)) if len(good) else 0.0
    values = (scores.score - good.mean()) / spread if spread > 0 else scores.score * np.nan
    return pd.Series(values.to_numpy(), index=scores.image_id.to_numpy())


def choose_cases(deviations: pd.DataFrame, label_index: np.ndarray) -> dict[str, str]:
    """Kind -> image id. deviations: a row an image, a column an experiment; label_index: int (image,)."""
    mean, spread = deviations.mean(axis=1), deviations.max(axis=1) - deviations.min(axis=1)
    defective = label_index != 0
    order = {
        "best": mean[defective].sort_values(ascending=False, kind="stable"),
        "worst": mean[defective].sort_values(kind="stable"),
        "false alarm": mean[~defective].sort_values(ascending=False, kind="stable"),
        "most different": spread.sort_values(ascending=False, kind="stable"),
    }
    chosen: dict[str, str] = {}
    for kind, images in order.items():
        free = [str(image) for image in images.index if image not in chosen.values()]
        if free and not (kind == "most different" and deviations.shape[1] < 2):
            chosen[kind] = free[0]
    return chosen
