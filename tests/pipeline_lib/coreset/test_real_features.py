"""Coreset and search on features of real images, where there are any: exact, and coresets compose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.dataset.images import load_image, to_rgb
from pipeline_lib.features.extractor import FeatureExtractor
from tests.reference_coreset import replay


@pytest.fixture(scope="module")
def features(real_data: Path) -> np.ndarray:
    """(patch, 152) of ten images."""
    paths = sorted((real_data / "magnetic_tile" / "train").rglob("*.*"))[:10]
    pixels = [np.array(to_rgb(load_image(path)).resize((256, 256))) for path in paths]
    extracted, _ = FeatureExtractor("efficientnet_lite0").extract(torch.from_numpy(np.stack(pixels)))
    return extracted.reshape(-1, extracted.shape[-1]).numpy()


def test_every_pick_is_the_farthest_row(features: np.ndarray) -> None:
    selection = greedy_coreset_selection(features, 300, rng=np.random.default_rng(0), threads=1)
    own, largest, radius = replay(features, selection.indices)
    assert (own[1:] >= (1 - 1e-5) * largest[1:]).all()
    assert selection.covering_radius == pytest.approx(radius, rel=1e-9)


def test_search_is_exact(features: np.ndarray) -> None:
    bank, queries = features[: len(features) // 2], features[len(features) // 2 :: 7]
    distances, _ = MemoryBank(bank, threads=1).query(queries, 3)
    points = bank.astype(np.float64)
    for query, found in zip(queries.astype(np.float64), distances, strict=True):
        expected = np.sort(np.sqrt(((points - query) ** 2).sum(axis=1)))[:3]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
