"""Anomaly maps and image scores: the distance of each patch to its nearest row of the memory bank.

Scores are distances in feature units; they are never rescaled by an image's own minimum and maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_contracts.errors import DatasetError
from data_contracts.stages import ScoringSettings
from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.features import image_manifests
from pipeline_lib.memory_bank import MemoryBank

QUERY_PATCHES = 32_768


@dataclass(frozen=True)
class ScoredImages:
    """Maps on the patch grid and scores of images of one size, in the order of `image_ids`."""

    image_ids: list[str]
    maps: np.ndarray  # float32 (image, grid height, grid width)
    scores: np.ndarray  # float64 (image,)


def patch_scores(bank: MemoryBank, patches: np.ndarray, *, num_neighbors: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Score of each patch (patch, dim) and its nearest row: the mean distance to its `num_neighbors` nearest rows."""
    distances, rows = bank.query(patches, num_neighbors=min(num_neighbors, len(bank)))
    return distances.mean(axis=1, dtype=np.float32), rows[:, 0]


def reweighted_score(bank: MemoryBank, patch: np.ndarray, *, num_neighbors: int) -> float:
    """Image score of the patch (dim,) that is farthest from the bank, Roth et al. 2022, equations 6 and 7.

    s = (1 - exp(s*) / sum over m in N_b(m*) of exp(d(patch, m))) * s*, with s* the distance to its nearest row m* and
    N_b(m*) the `num_neighbors` rows nearest to m*, m* among them.
    """
    distance, nearest = bank.query(patch[None], num_neighbors=1)
    s_star = float(distance[0, 0])
    m_star = bank.features[nearest[0, 0]]
    _, neighborhood = bank.query(m_star[None], num_neighbors=min(num_neighbors, len(bank)))
    to_neighbors = np.linalg.norm(bank.features[neighborhood[0]].astype(np.float64) - patch, axis=1)
    largest = max(s_star, float(to_neighbors.max()))
    weight = 1.0 - np.exp(s_star - largest) / np.exp(to_neighbors - largest).sum()
    return float(weight * s_star)


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
    maps: np.ndarray = np.empty((len(table), height, width), dtype=np.float32)
    scores = np.empty(len(table), dtype=np.float64)
    neighbors = settings.num_neighbors if settings.image_score == "max" else 1
    done = 0
    for patches in _image_chunks(table, store, images_per_chunk=max(1, QUERY_PATCHES // (height * width))):
        count = len(patches)
        flat = patches.reshape(count * height * width, -1)
        distances, _ = patch_scores(bank, flat, num_neighbors=neighbors)
        by_image = distances.reshape(count, height * width)
        maps[done : done + count] = by_image.reshape(count, height, width)
        farthest = by_image.argmax(axis=1)
        for image in range(count):
            if settings.image_score == "max":
                scores[done + image] = by_image[image, farthest[image]]
            else:
                patch = patches[image, farthest[image]]
                scores[done + image] = reweighted_score(bank, patch, num_neighbors=settings.num_neighbors)
        done += count
        if progress:
            progress(done, len(table))
    return ScoredImages([str(i) for i in table.image_id], maps, scores)


def _image_chunks(table: pd.DataFrame, store: ArtifactStore, *, images_per_chunk: int) -> Iterator[np.ndarray]:
    """Patches (image, patch, dim) float32 of a few images at a time."""
    manifests = list(image_manifests(table))
    for start in range(0, len(manifests), images_per_chunk):
        chunk = [store.read_array(m) for m in manifests[start : start + images_per_chunk]]
        yield np.stack(chunk).astype(np.float32)
