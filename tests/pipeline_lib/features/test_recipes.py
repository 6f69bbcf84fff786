"""Features that are not kept: made again from the image, to the byte, or a clear error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_contracts.errors import ArtifactError, ConfigError, DatasetError
from data_contracts.settings import Place
from data_contracts.tables import PATCH_FEATURES
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.features import extraction
from pipeline_lib.features.extraction import ImageRow, extract_features, image_rows, read_patches
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.feature_store import FeatureStore
from pipeline_lib.features.recipes import can_be_had, recipe_path
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import image_manifests
from tests.dataset_fixtures import write_image, write_tiny_autovi

SIZES = {"pipe_clip": (64, 64), "tank_screw": (96, 64)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny_autovi(tmp_path / "data", categories=("pipe_clip", "tank_screw"), train=2, good=1, defective=1)


@pytest.fixture
def rows(root: Path) -> list[ImageRow]:
    index = index_dataset(root)
    return image_rows(index[index.split == "train"], root)


@pytest.fixture
def store(tmp_path: Path, root: Path) -> FeatureStore:
    return FeatureStore(Place(store=tmp_path / "store", data_root=root))


def test_they_are_those_that_would_be_kept_and_are_computed_once_more_when_read(
    rows: list[ImageRow], root: Path, tmp_path: Path, store: FeatureStore, extractor: FeatureExtractor
) -> None:
    other = ArtifactStore(tmp_path / "other")
    kept = extract_features(rows, other, extractor, SIZES, version="1")
    table = extract_features(rows, store, extractor, SIZES, version="1", remade_from=root)
    assert kept.equals(table)
    assert other.write_table("patch_features", kept, PATCH_FEATURES).sha256 == (
        store.write_table("patch_features", table, PATCH_FEATURES).sha256
    )
    assert not list(store.root.rglob("*.npy"))
    for category in SIZES:
        own = table[table.category == category]
        np.testing.assert_array_equal(read_patches(own, store), read_patches(own, other))
    with pytest.raises(ArtifactError, match="is missing"):  # who has no images
        read_patches(table.iloc[:1], ArtifactStore(store.root))


def test_they_are_extracted_once_until_they_are_to_be_kept(
    rows: list[ImageRow], root: Path, store: FeatureStore, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = extraction.extract_batch
    monkeypatch.setattr(extraction, "extract_batch", lambda *a: (seen.append(1), original(*a))[1])

    def extracted(remade_from: Path | None) -> int:
        seen.clear()
        extract_features(rows, store, extractor, SIZES, version="1", remade_from=remade_from)
        return len(seen)

    assert [extracted(root), extracted(root), extracted(None), extracted(None), extracted(root)] == [4, 0, 4, 0, 0]


def test_a_kept_file_that_is_damaged_is_made_again_too(
    rows: list[ImageRow], root: Path, store: FeatureStore, extractor: FeatureExtractor
) -> None:
    table = extract_features(rows[:1], store, extractor, SIZES, remade_from=root)
    (manifest,) = image_manifests(table)
    true = store.read_array(manifest)
    store.path(manifest).write_bytes(b"0")
    np.testing.assert_array_equal(store.read_array(manifest), true)


def test_they_are_found_where_the_image_lies_by_now(
    rows: list[ImageRow], root: Path, store: FeatureStore, extractor: FeatureExtractor
) -> None:
    before = extract_features(rows[:1], store, extractor, SIZES, version="1", remade_from=root)
    moved = rows[0].path.rename(root / "pipe_clip" / "train" / "good" / "moved.png")
    row = replace(rows[0], path=moved)
    after = extract_features([row], store, extractor, SIZES, version="1", remade_from=root)
    assert before.equals(after)
    assert len(read_patches(after, store)) == 64


def test_what_cannot_be_made_again_is_said_and_made_anew_by_the_next_run(
    rows: list[ImageRow], root: Path, store: FeatureStore, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = extract_features(rows, store, extractor, SIZES, remade_from=root)
    manifests = list(image_manifests(table))
    write_image(rows[0].path, np.full((64, 64, 3), 7, np.uint8))
    with pytest.raises(DatasetError, match="has changed since it was indexed"):
        store.read_array(manifests[0])
    rows[1].path.unlink()
    with pytest.raises(FileNotFoundError, match="is gone since it was indexed"):
        store.read_array(manifests[1])
    recipe_path(store, manifests[2]).write_text("{")
    with pytest.raises(ArtifactError, match=r"recipe\.json is damaged: run again"):
        store.read_array(manifests[2])
    original = extraction.extract_batch
    monkeypatch.setattr(extraction, "extract_batch", lambda *a: (original(*a)[0] + np.float16(1), (8, 12)))
    with pytest.raises(ArtifactError, match=r"come out otherwise than before.*run again"):
        store.read_array(manifests[3])
    assert [can_be_had(store, manifest, kept=False) for manifest in manifests] == [False] * 4


def test_on_a_gpu_they_are_kept(rows: list[ImageRow], root: Path, store: FeatureStore) -> None:
    class OnGpu:
        device = torch.device("cuda")

    with pytest.raises(ConfigError, match=r"runtime\.keep_features: false.*set runtime\.device: cpu"):
        extract_features(rows, store, OnGpu(), SIZES, remade_from=root)  # type: ignore[arg-type]
