"""Pictures for a report: hits, misses and false alarms of each category, small enough for one HTML file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import with_config

from data_contracts.config import Layout
from data_contracts.defects import DefectEntry
from data_contracts.errors import DatasetError
from data_contracts.manifests import Cells
from data_contracts.settings import BY_TYPE, ImageReading
from pipeline_lib.dataset.ground_truth import category_defects, read_mask_channels, union_mask
from pipeline_lib.dataset.images import UPRIGHT, load_image, orientation
from pipeline_lib.maps.map_files import resize_map
from pipeline_lib.maps.saved_maps import smooth_map
from pipeline_lib.maps.visualize import (
    Scale,
    draw_outline,
    fit,
    map_scale,
    one_below_another,
    overlay,
    visualize_anomaly_map,
)
from pipeline_lib.metrics.image_metrics import threshold_at_tnr
from pipeline_lib.report.explainer import BankExplainer
from pipeline_lib.report.why import BYTES_IN_JSON, EXPLAINED_KINDS, Why, draw_why, tile_budget

THRESHOLD_TNR = 0.95
KINDS = ("hits", "misses", "false alarms")
PER_KIND = 6
SIDE_PX = 440
PICTURES_BYTES = 4_800_000
"""All pictures of a report together, beside WHY_BYTES; as data: URIs they take a third more: a file below 8 MB."""

_LEAST_BYTES = 3_000
_STEPS = ((1.0, 82), (0.8, 76), (0.65, 70), (0.5, 60), (0.35, 50), (0.25, 45), (0.17, 40), (0.1, 35))
"""(share of the side, WebP quality), until a picture fits."""


@with_config(BYTES_IN_JSON)
@dataclass(frozen=True)
class Example:
    """One test image with its score, the picture with the outline of its masks, and with the map over it (WebP)."""

    image_id: str
    label: str
    score: float
    size_px: tuple[int, int] = (0, 0)  # width, height of the pictures
    image: bytes = b""
    heat: bytes = b""
    problem: str = ""  # why there is no picture, or no outline
    why: tuple[Why, ...] = ()  # of the first hit and the first false alarm


@with_config(BYTES_IN_JSON)
@dataclass(frozen=True)
class CategoryGallery:
    """The examples of one category."""

    category: str
    scale: Scale
    threshold: float | None  # of the decision; without one at THRESHOLD_TNR on the good test images, None without these
    counts: dict[str, int]  # kind -> images of that kind
    examples: dict[str, list[Example]]
    sheet: bytes = b""  # JPEG: image, heat map and overlay of the first of each kind; empty without any picture
    decided: bool = False  # whether the threshold is that of the decision


def category_gallery(
    maps: np.ndarray,
    scores: pd.DataFrame,
    root: Path,
    *,
    layout: Layout,
    sigma_px: float,
    reading: ImageReading = BY_TYPE,
    n_categories: int = 1,
    per_kind: int = PER_KIND,
    explainer: BankExplainer | None = None,
    cells: Cells | None = None,
    threshold: float | None = None,
) -> CategoryGallery:
    """The gallery of one category.

    maps: float32 (image, height, width) on the patch grid, in the order of `scores` (schema IMAGE_SCORES); root: of
    the data set; reading: how its files become pixels; sigma_px: the blur that the map had when it was measured;
    n_categories: how many galleries share the space of a report; explainer: says why the first hit and the first false
    alarm are flagged; cells: where those of the grid look, in the middle of their shares of the image unless given;
    threshold: of the decision in use, `good_threshold` unless given. An image or mask that cannot be read is shown as a
    line of text.
    """
    category = str(scores.category.iloc[0])
    per_kind = max(1, min(per_kind, PICTURES_BYTES // (2 * len(KINDS) * n_categories * _LEAST_BYTES)))
    max_bytes = PICTURES_BYTES // (2 * len(KINDS) * n_categories * per_kind)
    labels = scores.label_index.to_numpy()
    scale = map_scale(maps, labels)
    decided = threshold is not None
    if threshold is None:
        threshold = good_threshold(labels, scores.score.to_numpy())
    by_kind = sort_by_kind(scores.reset_index(drop=True), threshold)
    painter = Painter(root, category, layout, sigma_px, scale, max_bytes, reading, cells)
    examples = {}
    for kind, rows in by_kind.items():
        chosen = take_in_turn(rows, per_kind)
        examples[kind] = [painter.example(row, maps[position]) for position, row in chosen]
        if explainer and chosen and kind in EXPLAINED_KINDS:
            position, row = chosen[0]
            why = painter.why(row, maps[position], explainer, *tile_budget(n_categories))
            examples[kind][0] = replace(examples[kind][0], why=why)
    firsts = [take_in_turn(rows, 1)[0] for rows in by_kind.values() if len(rows)]
    sheet = painter.sheet([(row, maps[position]) for position, row in firsts])
    counts = {kind: len(rows) for kind, rows in by_kind.items()}
    return CategoryGallery(category, scale, threshold, counts, examples, sheet, decided)


def good_threshold(label_index: np.ndarray, scores: np.ndarray) -> float | None:
    """The score that THRESHOLD_TNR of the good test images do not exceed; None where there is no good image."""
    good = scores[np.asarray(label_index) == 0]
    return threshold_at_tnr(good, THRESHOLD_TNR) if len(good) else None


def sort_by_kind(scores: pd.DataFrame, threshold: float | None) -> dict[str, pd.DataFrame]:
    """kind -> its images, the most telling first: hits and false alarms from the highest score, misses from the lowest.

    An image is called defective when its score is above the threshold. Without a threshold nothing is a miss, and
    every defective image is in `hits`. Rows keep their index.
    """
    rising = scores.sort_values(["score", "image_id"])
    falling = scores.sort_values(["score", "image_id"], ascending=[False, True])

    def chosen(rows: pd.DataFrame, *, defective: bool, called_defective: bool) -> pd.DataFrame:
        above = rows.score > (-np.inf if threshold is None else threshold)
        return rows[((rows.label_index != 0) == defective) & (above == called_defective)]

    return {
        "hits": chosen(falling, defective=True, called_defective=True),
        "misses": chosen(rising, defective=True, called_defective=False),
        "false alarms": chosen(falling, defective=False, called_defective=True),
    }


def take_in_turn(rows: pd.DataFrame, count: int) -> list[tuple[int, dict[Any, Any]]]:
    """The first `count` rows, taken from each label in turn, as (index, row); ranked inside each label as given."""
    rank = rows.groupby("label", sort=False).cumcount()
    chosen = rows.assign(_rank=rank).sort_values("_rank", kind="stable").head(count)
    return list(zip(chosen.index, chosen.drop(columns="_rank").to_dict("records"), strict=True))


def encode_webp(picture: Image.Image, max_bytes: int) -> bytes:
    """The picture as WebP of at most `max_bytes` where that can be had: smaller and coarser step by step."""
    content = b""
    for share, quality in _STEPS:
        size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
        buffer = io.BytesIO()
        scaled = picture if share == 1 else picture.resize(size, Image.Resampling.LANCZOS)
        scaled.save(buffer, "WEBP", quality=quality, method=4)
        content = buffer.getvalue()
        if len(content) <= max_bytes:
            break
    return content


@dataclass
class Painter:
    """Turns rows and maps into pictures."""

    root: Path
    category: str
    layout: Layout
    sigma_px: float
    scale: Scale
    max_bytes: int
    reading: ImageReading
    cells: Cells | None = None  # where those of the maps look; None: in the middle of their shares of the image
    defects: Sequence[DefectEntry] | None = None

    def example(self, row: Mapping[Any, Any], grid_map: np.ndarray) -> Example:
        known = Example(str(row["image_id"]), str(row["label"]), float(row["score"]))
        try:
            picture, mask, problem = self._load(row)
        except DatasetError as error:
            return Example(known.image_id, known.label, known.score, problem=str(error))
        values, cells = self._full_map(grid_map, picture)
        picture, mask = fit(picture, mask, SIDE_PX)
        pixels = np.array(picture)
        values = resize_map(values, picture.height, picture.width, cells)
        outlined = pixels if mask is None else draw_outline(pixels, mask)
        return Example(
            known.image_id,
            known.label,
            known.score,
            size_px=picture.size,
            image=encode_webp(Image.fromarray(outlined), self.max_bytes),
            heat=encode_webp(Image.fromarray(overlay(pixels, values, self.scale)), self.max_bytes),
            problem=problem,
        )

    def why(
        self, row: Mapping[Any, Any], grid_map: np.ndarray, explainer: BankExplainer, n_patches: int, max_bytes: int
    ) -> tuple[Why, ...]:
        """Why the image is flagged; nothing where it cannot be read, or where there is no room."""
        if not n_patches:
            return ()
        try:
            picture = load_image(self.root / row["path"], self.reading)
        except DatasetError:
            return ()
        explanations = explainer.explain(str(row["image_id"]), grid_map, n_patches)
        return draw_why(picture, explanations, lambda tile: encode_webp(tile, max_bytes), self.reading)

    def sheet(self, chosen: Sequence[tuple[Mapping[Any, Any], np.ndarray]]) -> bytes:
        """Image, heat map and overlay of each chosen image, one below another, as JPEG."""
        rows = []
        for row, grid_map in chosen:
            try:
                picture, mask, _ = self._load(row)
            except DatasetError:
                continue
            values, cells = self._full_map(grid_map, picture)
            rows.append(
                visualize_anomaly_map(
                    picture, values, scale=self.scale, ground_truth=mask, panel_px=SIDE_PX, cells=cells
                )
            )
        if not rows:
            return b""
        buffer = io.BytesIO()
        one_below_another(rows).save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    def _full_map(self, grid_map: np.ndarray, picture: Image.Image) -> tuple[np.ndarray, Cells | None]:
        """The map as it was measured, unless it needs no blur: then resizing it once is enough; and its cells."""
        if not self.sigma_px:
            return grid_map, self.cells
        return smooth_map(resize_map(grid_map, picture.height, picture.width, self.cells), self.sigma_px), None

    def _load(self, row: Mapping[Any, Any]) -> tuple[Image.Image, np.ndarray | None, str]:
        """(picture, mask or None, why there is no mask). Raises ImageError where the image cannot be read."""
        path = self.root / row["path"]
        picture = load_image(path, self.reading)
        if not row["label_index"]:
            return picture, None, ""
        try:
            if self.defects is None:
                self.defects = category_defects(self.root, self.category, layout=self.layout)
            channels = read_mask_channels(
                self.root,
                self.category,
                str(row["label"]),
                Path(str(row["path"])).stem,
                layout=self.layout,
                width=picture.width,
                height=picture.height,
                orientation=orientation(path) if self.reading.orientation == "applied" else UPRIGHT,
                defects=self.defects,
            )
        except DatasetError as error:
            return picture, None, f"no outline: {error}"
        mask = union_mask(channels, picture.height, picture.width) if channels else None
        return picture, mask, "" if channels else "no mask"
