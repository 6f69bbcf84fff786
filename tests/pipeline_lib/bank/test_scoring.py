"""Anomaly maps and image scores against the formulas written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.errors import DatasetError
from data_contracts.manifests import Cells
from data_contracts.settings import ScoringSettings
from pipeline_lib.bank import scoring
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.bank.scoring import patch_scores, reweighted_score, score_images, score_patches, top_mean
from pipeline_lib.storage.artifact_store import ArtifactStore

GRID = (3, 4)
DIM = 5


def settings(**values: Any) -> ScoringSettings:
    defaults: dict[str, Any] = {
        "seed": 0,
        "num_neighbors": 1,
        "image_score": "max",
        "search": "exact",
        "use_faiss": True,
    }
    return ScoringSettings(**{**defaults, **values})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture(scope="module")
def bank() -> MemoryBank:
    return MemoryBank(np.random.default_rng(1).normal(size=(30, DIM)).astype(np.float32))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """float16 (image, patch, dim): seven images, the fourth with one patch far off."""
    patches = np.random.default_rng(2).normal(size=(7, 12, DIM)).astype(np.float16)
    patches[3, 5] += 20
    return patches


def feature_table(store: ArtifactStore, images: np.ndarray, grid: tuple[int, int] = GRID) -> pd.DataFrame:
    rows = []
    for number, patches in enumerate(images):
        written = store.write_array("image_features", patches)
        rows.append(
            {"image_id": f"x/test/good/{number}", "grid_height": grid[0], "grid_width": grid[1], "dim": DIM,
             "cells": Cells.even(grid).for_table(),
             "path": written.path, "sha256": written.sha256, "size_bytes": written.size_bytes}
        )  # fmt: skip
    return pd.DataFrame(rows)


def true_distances(bank: MemoryBank, patches: np.ndarray) -> np.ndarray:
    """float64 (patch, row), by differences."""
    rows = bank.features.astype(np.float64)
    distances: np.ndarray = np.linalg.norm(patches.astype(np.float64)[:, None] - rows[None], axis=2)
    return distances


def test_a_patch_scores_its_distance_to_the_nearest_row(bank: MemoryBank, images: np.ndarray) -> None:
    distances = true_distances(bank, images[0])
    scores, rows = patch_scores(bank, images[0].astype(np.float32))
    assert np.allclose(scores, distances.min(axis=1), rtol=1e-5)
    assert np.array_equal(rows, distances.argmin(axis=1))
    of_three, _ = patch_scores(bank, images[0].astype(np.float32), num_neighbors=3)
    assert np.allclose(of_three, np.sort(distances, axis=1)[:, :3].mean(axis=1), rtol=1e-5)
    of_all, _ = patch_scores(bank, images[0].astype(np.float32), num_neighbors=500)  # more than there are rows
    assert np.allclose(of_all, distances.mean(axis=1), rtol=1e-5)


def test_a_row_of_the_bank_scores_zero(bank: MemoryBank) -> None:
    assert patch_scores(bank, bank.features)[0].max() == 0


def paper_score(bank: MemoryBank, patch: np.ndarray, neighbors: int) -> float:
    """Roth et al. 2022, equations 6 and 7, in float64."""
    rows = bank.features.astype(np.float64)
    to_rows = np.linalg.norm(rows - patch.astype(np.float64), axis=1)
    m_star = int(to_rows.argmin())
    nearby = np.argsort(np.linalg.norm(rows - rows[m_star], axis=1), kind="stable")[:neighbors]
    return float((1 - np.exp(to_rows[m_star]) / np.exp(to_rows[nearby]).sum()) * to_rows[m_star])


@pytest.mark.parametrize("neighbors", [2, 5, 30])
def test_reweighting_is_the_papers_formula(bank: MemoryBank, images: np.ndarray, neighbors: int) -> None:
    for patch in images[0].astype(np.float32):
        expected = paper_score(bank, patch, neighbors)
        assert reweighted_score(bank, patch, num_neighbors=neighbors) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_reweighting_survives_large_distances(bank: MemoryBank) -> None:
    far = np.full(DIM, 5000.0, dtype=np.float32)
    score = reweighted_score(bank, far, num_neighbors=5)
    distance = true_distances(bank, far[None]).min()
    assert 0 < score < distance
    one_row = MemoryBank(np.zeros((1, DIM), dtype=np.float32))
    assert reweighted_score(one_row, far, num_neighbors=5) == 0  # N_b holds m* alone, and the weight is 0


def test_maps_and_scores_of_a_table(
    bank: MemoryBank, images: np.ndarray, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "QUERY_PATCHES", 3 * 12)  # chunks of 3, 3 and 1 images
    steps: list[tuple[int, int]] = []
    scored = score_images(
        feature_table(store, images), store, bank, settings(), progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(3, 7), (6, 7), (7, 7)]
    assert scored.image_ids == [f"x/test/good/{number}" for number in range(7)]
    assert scored.maps.shape == (7, *GRID)
    assert scored.maps.dtype == np.float32
    for number, patches in enumerate(images):
        expected = true_distances(bank, patches).min(axis=1).reshape(GRID)  # row-major: patch 5 is row 1, column 1
        assert np.allclose(scored.maps[number], expected, rtol=1e-5)
        assert scored.scores[number] == scored.maps[number].max()
    assert np.unravel_index(scored.maps[3].argmax(), GRID) == (1, 1)
    assert scored.scores.argmax() == 3
    assert len(np.unique(scored.maps.max(axis=(1, 2)))) == 7  # never scaled to a map's own range


def test_reweighted_scores_of_a_table(bank: MemoryBank, images: np.ndarray, store: ArtifactStore) -> None:
    table = feature_table(store, images)
    plain = score_images(table, store, bank, settings())
    reweighted = score_images(table, store, bank, settings(image_score="reweighted", num_neighbors=4))
    assert np.array_equal(plain.maps, reweighted.maps)  # only the image's score is re-weighted
    for number, patches in enumerate(images):
        farthest = patches[plain.maps[number].argmax()].astype(np.float32)
        assert reweighted.scores[number] == pytest.approx(paper_score(bank, farthest, 4), rel=1e-5)


def test_several_neighbors_change_the_map(bank: MemoryBank, images: np.ndarray) -> None:
    patches = images.astype(np.float32)
    by_image, scores = score_patches(bank, patches, settings(num_neighbors=3))
    expected = np.sort(true_distances(bank, patches[2]), axis=1)[:, :3].mean(axis=1)
    assert np.allclose(by_image[2], expected, rtol=1e-5)
    assert np.array_equal(scores, by_image.max(axis=1))


def test_the_chunks_do_not_change_the_scores(
    bank: MemoryBank, images: np.ndarray, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = feature_table(store, images)
    whole = score_images(table, store, bank, settings())
    monkeypatch.setattr(scoring, "QUERY_PATCHES", 1)
    assert np.array_equal(whole.maps, score_images(table, store, bank, settings()).maps)


def test_images_of_two_grids_or_none_are_refused(bank: MemoryBank, images: np.ndarray, store: ArtifactStore) -> None:
    table = pd.concat([feature_table(store, images[:2]), feature_table(store, images[2:4], (4, 3))])
    with pytest.raises(DatasetError, match=r"one patch grid, got \[\(3, 4\), \(4, 3\)\]"):
        score_images(table, store, bank, settings())
    with pytest.raises(DatasetError, match="no images"):
        score_images(table.iloc[:0], store, bank, settings())


def test_the_mean_of_the_highest_share(bank: MemoryBank, images: np.ndarray, store: ArtifactStore) -> None:
    table = feature_table(store, images)
    plain = score_images(table, store, bank, settings())
    for share, count in ((0.01, 1), (0.25, 3), (0.3, 4), (1.0, 12)):  # of 12 patches: round(3.6) is 4
        scored = score_images(table, store, bank, settings(image_score="top_share", top_share=share))
        assert np.array_equal(scored.maps, plain.maps)
        highest = np.sort(plain.maps.reshape(7, 12).astype(np.float64), axis=1)[:, -count:]
        assert np.allclose(scored.scores, highest.mean(axis=1), rtol=1e-14)
    of_three = score_patches(bank, images.astype(np.float32), settings(num_neighbors=3, image_score="top_share"))
    assert np.array_equal(of_three[1], of_three[0].max(axis=1))  # one patch, of the map by three neighbours


def test_the_mean_adds_up_from_the_smallest_in_turn() -> None:
    """So that no processor's way of adding several numbers at once shows."""
    scores = np.random.default_rng(3).random((4, 1000), dtype=np.float32)
    for row, mean in zip(scores, top_mean(scores, 0.3), strict=True):
        total = 0.0
        for value in sorted(row.tolist())[-300:]:
            total += value
        assert mean == total / 300
