"""Anomaly maps and image scores: the distance of each patch to its nearest row of the memory bank.

Scores are distances in feature units; they are never rescaled by an image's own minimum and maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_contracts.errors import DatasetError
from data_contracts.manifests import Cells
from data_contracts.settings import ScoringSettings
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.neighbors.halves import widened
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import image_manifests

RECALL_IMAGES = 8
RECALL_PATCHES = 1000
QUERY_PATCHES = 32_768


@dataclass(frozen=True)
class ScoredImages:
    """Maps on the patch grid and scores of images of one size, in the order of `image_ids`."""

    image_ids: list[str]
    maps: np.ndarray  # float32 (image, grid height, grid width)
    scores: np.ndarray  # float64 (image,)
    cells: Cells  # where the grid's cells look


def patch_scores(bank: MemoryBank, patches: np.ndarray, *, num_neighbors: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Score of each patch (patch, dim) and its nearest row: the mean distance to its `num_neighbors` nearest rows."""
    distances, rows = bank.query(patches, num_neighbors=min(num_neighbors, len(bank)))
    return distances.mean(axis=1, dtype=np.float32), rows[:, 0]


def reweighted_score(bank: MemoryBank, patch: np.ndarray, *, num_neighbors: int) -> float:
    """Image score of the patch (dim,) that is farthest from the bank, Roth et al. 2022, equations 6 and 7.

    s = (1 - exp(s*) / sum over m in N_b(m*) of exp(d(patch, m))) * s*, with s* the distance to its nearest row m* and
    N_b(m*) the `num_neighbors` rows nearest to m*, m* among them.
    """
    _, nearest = bank.query(patch[None], num_neighbors=1)
    m_star = bank.features[nearest[0, 0]]
    s_star = float(np.linalg.norm(m_star.astype(np.float64) - patch))  # exp() of it would show float32's rounding
    _, neighborhood = bank.query(m_star[None], num_neighbors=min(num_neighbors, len(bank)))
    to_neighbors = np.linalg.norm(bank.features[neighborhood[0]].astype(np.float64) - patch, axis=1)
    largest = max(s_star, float(to_neighbors.max()))
    weight = 1.0 - np.exp(s_star - largest) / np.exp(to_neighbors - largest).sum()
    return float(weight * s_star)


def top_mean(by_image: np.ndarray, share: float) -> np.ndarray:
    """Mean of the `share` of each image's patch scores (image, patch) that are largest, at least one: float64 (image,).

    round(share x patches) of them, added up from the smallest on: the same bits on every processor.
    """
    count = max(1, round(share * by_image.shape[1]))
    largest = np.sort(by_image, axis=1)[:, -count:].astype(np.float64)
    mean: np.ndarray = np.add.accumulate(largest, axis=1)[:, -1] / count
    return mean


def score_patches(bank: MemoryBank, patches: np.ndarray, settings: ScoringSettings) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the patches of some images: patches (image, patch, dim) -> (image, patch) float32, (image,) float64.

    The image's score is that of its farthest patch, its re-weighted distance (`reweighted_score`), or the mean of the
    `top_share` of its patches that are farthest (`top_mean`).
    """
    count, per_image, dim = patches.shape
    neighbors = 1 if settings.image_score == "reweighted" else settings.num_neighbors
    distances, _ = patch_scores(bank, patches.reshape(count * per_image, dim), num_neighbors=neighbors)
    by_image = distances.reshape(count, per_image)
    if settings.image_score == "max":
        return by_image, by_image.max(axis=1).astype(np.float64)
    if settings.image_score == "top_share":
        return by_image, top_mean(by_image, settings.top_share)
    farthest = [patches[image, patch] for image, patch in enumerate(by_image.argmax(axis=1))]
    scores = [reweighted_score(bank, patch, num_neighbors=settings.num_neighbors) for patch in farthest]
    return by_image, np.array(scores, dtype=np.float64)


def score_images(
    table: pd.DataFrame,
    store: ArtifactStore,
    bank: MemoryBank,
    settings: ScoringSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ScoredImages:
    """Score the images of a PATCH_FEATURES table, a few at a time.

    All images must have one grid. Raises DatasetError otherwise, or when the table is empty.
    """
    grids = {(int(h), int(w)) for h, w in zip(table.grid_height, table.grid_width, strict=True)}
    if len(grids) != 1:
        raise DatasetError(f"images of one category must have one patch grid, got {sorted(grids) or 'no images'}")
    height, width = grids.pop()
    cells = Cells.of_table(table.cells.iloc[0])  # one size, one grid: one for all
    maps: np.ndarray = np.empty((len(table), height, width), dtype=np.float32)
    scores = np.empty(len(table), dtype=np.float64)
    done = 0
    for patches in _image_chunks(table, store, images_per_chunk=max(1, QUERY_PATCHES // (height * width))):
        part = slice(done, done + len(patches))
        by_image, scores[part] = score_patches(bank, patches, settings)
        maps[part] = by_image.reshape(len(patches), height, width)
        done += len(patches)
        if progress:
            progress(done, len(table))
    return ScoredImages([str(i) for i in table.image_id], maps, scores, cells)


def search_recall(table: pd.DataFrame, store: ArtifactStore, bank: MemoryBank) -> float | None:
    """Share of the true nearest rows that the bank's approximate search finds, on a sample of these images' patches.

    None where the search is exact. A small bank is searched whole by every index: its recall is 1.
    """
    if bank.search == "exact" or not len(table):
        return None
    manifests = list(image_manifests(table))
    images = np.unique(np.linspace(0, len(manifests) - 1, RECALL_IMAGES).astype(int))
    patches = np.concatenate([store.read_array(manifests[image]) for image in images])
    step = max(1, len(patches) // RECALL_PATCHES)
    return round(bank.recall(widened(patches[::step])), 4)


def _image_chunks(table: pd.DataFrame, store: ArtifactStore, *, images_per_chunk: int) -> Iterator[np.ndarray]:
    """Patches (image, patch, dim) float32 of a few images at a time."""
    manifests = list(image_manifests(table))
    for start in range(0, len(manifests), images_per_chunk):
        chunk = [store.read_array(m) for m in manifests[start : start + images_per_chunk]]
        yield widened(np.stack(chunk))
