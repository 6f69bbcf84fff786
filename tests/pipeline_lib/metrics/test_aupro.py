"""AUC-sPRO in MVTec's layout against a plain AUPRO (Bergmann et al. 2021), written out here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from data_contracts.config import ExperimentConfig
from data_contracts.settings import EvaluationSettings
from pipeline_lib.metrics.evaluation import evaluate_map_files
from tests.dataset_fixtures import write_image

SIZE = (20, 24)


def aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """Mean overlap of the 8-connected regions over the false positive rate up to `limit`, divided by it.

    At each score: pixels of it or above are marked; the overlap of a region is its share that is marked.
    """
    regions = [np.argwhere(labels == n) for labels, n in _labelled(masks)]
    of_map = [image for image, mask in enumerate(masks) for _ in range(ndimage.label(mask, np.ones((3, 3)))[1])]
    normal = np.concatenate([values[~mask] for values, mask in zip(maps, masks, strict=True)])
    x, y = [0.0], [0.0]
    for score in np.unique(np.concatenate([values.ravel() for values in maps]))[::-1]:
        x.append(float(np.mean(normal >= score)))
        overlaps = [
            np.mean([maps[image][tuple(place)] >= score for place in region])
            for image, region in zip(of_map, regions, strict=True)
        ]
        y.append(float(np.mean(overlaps)))
    inside = [i for i, rate in enumerate(x) if rate <= limit]
    ends = [*(x[i] for i in inside), limit], [*(y[i] for i in inside), float(np.interp(limit, x, y))]
    return float(np.trapezoid(ends[1], ends[0]) / limit)


def _labelled(masks: list[np.ndarray]) -> list[tuple[np.ndarray, int]]:
    found = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    return [(labels, n) for labels, count in found for n in range(1, count + 1)]


@pytest.mark.parametrize("limit", ["0.05", "0.3"])
def test_it_is_aupro_where_regions_are_saturated_by_their_whole_area(limit: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    root, maps_root = tmp_path / "data", tmp_path / "maps"
    maps, masks = [], []
    for n in range(6):
        folder = "good" if n < 3 else "crack"
        mask = np.zeros(SIZE, bool)
        if folder == "crack":
            mask[2:6, 3:9] = mask[6, 9] = True  # touches the other at a corner: one region
            mask[12:14, 12 : 14 + n] = True  # of another size: each region counts once
        write_image(root / "part" / "test" / folder / f"{n}.png", rng.integers(0, 255, (*SIZE, 3), np.uint8))
        values = np.round(rng.random(SIZE) + 0.6 * mask, 2).astype(np.float32)
        (maps_root / "part" / "test" / folder).mkdir(parents=True, exist_ok=True)
        np.save(maps_root / "part" / "test" / folder / f"{n}.npy", values)
        if folder == "crack":
            (root / "part" / "ground_truth" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 * mask.astype(np.uint8)).save(root / "part" / "ground_truth" / folder / f"{n}_mask.png")
        maps.append(values)
        masks.append(mask)
    write_image(root / "part" / "train" / "good" / "0.png", rng.integers(0, 255, (*SIZE, 3), np.uint8))
    config = ExperimentConfig.model_validate({"dataset": {"layout": "mvtec"}, "evaluation": {"bootstrap": 0}})
    (measured,) = evaluate_map_files(root, maps_root, EvaluationSettings.of(config))
    assert measured.metrics["all"].auc_spro[limit] == pytest.approx(aupro(maps, masks, float(limit)), abs=1e-9)
    assert len(_labelled(masks)) == 6
