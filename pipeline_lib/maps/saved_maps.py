"""A category's anomaly maps written as files, in the layout that `fedpatch evaluate` measures.

`<maps>/<category>/test/<folder>/<stem>.<format>` at the images' own size, and `<maps>/<category>/scores.json` with the
image scores: they are taken on the patch grid, and a resized map's maximum is a little lower. npy and tiff give the
same figures again; png, 16 bit in one scale for the category, is off by at most half a step of it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import ndimage

from data_contracts.errors import ImageError
from data_contracts.manifests import Cells
from pipeline_lib.maps.map_files import MapScale, resize_map, write_npy_map, write_png_map, write_scale, write_tiff_map
from pipeline_lib.storage.artifact_store import write_file

MapFormat = Literal["png", "tiff", "npy"]
SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class ImageMap:
    """One test image's map on the patch grid, its score, and the image's own size in pixels."""

    folder: str
    stem: str
    height: int
    width: int
    grid_map: np.ndarray  # float32 (grid height, grid width)
    score: float
    cells: Cells | None = None  # where the grid's cells look; None: in the middle of their shares of the image


def smooth_map(values: np.ndarray, sigma_px: float) -> np.ndarray:
    """Gaussian blur of a map (height, width), sigma in pixels; 0 leaves it as it is."""
    if sigma_px == 0:
        return values
    blurred: np.ndarray = ndimage.gaussian_filter(values, sigma_px, output=np.float32)
    return blurred


def write_category_maps(
    maps_root: Path, category: str, maps: Iterable[ImageMap], *, map_format: MapFormat = "png", sigma_px: float = 0.0
) -> int:
    """Write a category's maps, resized and blurred, in place of those that were there; returns how many.

    Raises ImageError for two images that would share a file (equal stems) and for values that are not finite.
    """
    directory = maps_root / category
    for old in ("test", SCORES_FILE, "scale.json"):
        if (directory / old).is_dir():
            shutil.rmtree(directory / old)
        else:
            (directory / old).unlink(missing_ok=True)
    chosen = list(maps)
    scores: dict[str, float] = {}
    for item in chosen:
        key = f"{item.folder}/{item.stem}"
        if key in scores:
            raise ImageError(f"two test images of {category} are called {key}: their maps would share a file")
        scores[key] = item.score

    def full(item: ImageMap) -> np.ndarray:
        return smooth_map(resize_map(item.grid_map, item.height, item.width, item.cells), sigma_px)

    scale = MapScale.of_maps(full(item) for item in chosen) if map_format == "png" and chosen else None
    for item in chosen:
        path = directory / "test" / item.folder / f"{item.stem}.{map_format}"
        match map_format:
            case "npy":
                write_npy_map(path, full(item))
            case "tiff":
                write_tiff_map(path, full(item))
            case "png" if scale is not None:
                write_png_map(path, full(item), scale=scale)
    if scale is not None:
        write_scale(directory, scale)
    write_file(directory / SCORES_FILE, (json.dumps(scores, indent=1) + "\n").encode(), durable=False)
    return len(chosen)


def stored_image_maps(
    maps: np.ndarray, scores: pd.DataFrame, index: pd.DataFrame, cells: Cells | None = None
) -> list[ImageMap]:
    """The maps of one category as a run stores them: `maps` (image, height, width) in the order of IMAGE_SCORES rows.

    `index` (DATASET_INDEX) knows the images' own sizes.
    """
    columns = ("image_id", "height", "width")
    sizes = {image_id: (int(h), int(w)) for image_id, h, w in zip(*(index[c] for c in columns), strict=True)}
    return [
        ImageMap(
            folder=row["label"],
            stem=Path(row["path"]).stem,
            height=sizes[row["image_id"]][0],
            width=sizes[row["image_id"]][1],
            grid_map=grid_map,
            score=float(row["score"]),
            cells=cells,
        )
        for row, grid_map in zip(scores.to_dict("records"), maps, strict=True)
    ]


def read_scores(maps_root: Path, category: str) -> Mapping[str, float] | None:
    """`<folder>/<stem>` -> image score, or None where there is no such file.

    Raises ImageError for a file that does not hold finite numbers by name.
    """
    path = maps_root / category / SCORES_FILE
    if not path.is_file():
        return None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        scores = {str(key): float(value) for key, value in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ImageError(f"{path}: expected a JSON object of <folder>/<stem>: score ({error})") from error
    if bad := [key for key, value in scores.items() if not math.isfinite(value)]:
        raise ImageError(f"{path}: the scores of {', '.join(bad[:3])} are not finite")
    return scores
