"""Anomaly maps of a whole test set from a trained model, written as files.

>>> from pipeline_lib.models.anomaly_scorer import AnomalyScorer
>>> AnomalyScorer.__init__.__kwdefaults__
{'map_format': 'png'}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from pipeline_lib.dataset.autovi_dataset import AutoVIDataset, AutoVISubset
from pipeline_lib.maps.saved_maps import ImageMap, MapFormat, write_category_maps
from pipeline_lib.models.patchcore import ScoredImage
from pipeline_lib.models.saved_model import Inference


class ScoringModel(Protocol):
    """A trained `PatchCore` or `FederatedPatchCore`."""

    inference: Inference

    def score(self, images: Any, /) -> Iterator[ScoredImage]: ...


class AnomalyScorer:
    """Scores test images with a trained model and writes their maps.

    One scorer a variant: give each its own directory and compare what `fedpatch evaluate --maps` says of them.
    `map_format`: png (16 bit, one scale a category), tiff or npy (float32, exact).
    """

    def __init__(self, model: ScoringModel, *, map_format: MapFormat = "png") -> None:
        self.model = model
        self.map_format = map_format

    def generate_anomaly_maps(self, dataset: AutoVIDataset | AutoVISubset, out: Path | str) -> pd.DataFrame:
        """Write `<out>/<category>/test/<folder>/<stem>.<format>` for every image; returns category, path and score.

        Maps that were there for these categories are replaced. A model of one category scores all images by its one
        bank. Raises ImageError for an image that cannot be read any more.
        """
        folders = {path: folder for path, _, _, folder in dataset.samples}
        by_category: dict[str, list[ImageMap]] = defaultdict(list)
        rows = []
        for scored in self.model.score(dataset):
            info = scored.info
            path, category = str(info.path), str(info.category)
            place = (folders[path], Path(path).stem, info.height, info.width)
            by_category[category].append(ImageMap(*place, scored.grid_map, scored.score, scored.cells))
            rows.append({"category": category, "path": path, "score": scored.score})
        for category, maps in by_category.items():
            sigma_px = self.model.inference.smoothing_sigma
            write_category_maps(Path(out), category, maps, map_format=self.map_format, sigma_px=sigma_px)
        return pd.DataFrame(rows, columns=["category", "path", "score"])
