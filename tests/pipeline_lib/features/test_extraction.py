"""Patch features in the store: computed once, checked on reading, the same whatever the batch or the workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from data_contracts.errors import ArtifactError, DatasetError
from data_contracts.manifests import Cells
from data_contracts.settings import AS_EARLIER, BY_TYPE, ImageReading
from data_contracts.tables import PATCH_FEATURES
from pipeline_lib.dataset.images import load_image
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.features import extraction
from pipeline_lib.features.extraction import ImageRow, extract_features, feature_key, image_rows, read_patches
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.preprocessing import preprocess_image
from pipeline_lib.storage.artifact_store import ArtifactStore
from tests.dataset_fixtures import truncate, write_tiny_autovi

SIZES = {"pipe_clip": (64, 64), "tank_screw": (96, 64)}
GRIDS = {"pipe_clip": (8, 8), "tank_screw": (8, 12)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny_autovi(tmp_path / "data", categories=("pipe_clip", "tank_screw"), train=3, good=1, defective=1)


@pytest.fixture
def rows(root: Path) -> list[ImageRow]:
    """Three training images of each category, interleaved, so that sizes change from image to image."""
    index = index_dataset(root)
    train = index[index.split == "train"]
    return image_rows(train, root)[::3] + image_rows(train, root)[1::3] + image_rows(train, root)[2::3]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def passes(extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Images in each forward pass."""
    seen: list[int] = []
    original = extractor.extract

    def counting(pixels: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        seen.append(len(pixels))
        return original(pixels)

    monkeypatch.setattr(extractor, "extract", counting)
    return seen


def test_features_are_those_of_the_resized_image_in_half_precision(
    rows: list[ImageRow], store: ArtifactStore, extractor: FeatureExtractor
) -> None:
    steps: list[tuple[int, int]] = []
    table = extract_features(rows, store, extractor, SIZES, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(number, 6) for number in range(7)]
    assert pa.Table.from_pandas(table, schema=PATCH_FEATURES, preserve_index=False).num_rows == 6
    assert table.image_id.tolist() == [row.image_id for row in rows]
    patches = read_patches(table, store)
    assert patches.dtype == np.float32
    start = 0
    for row, record in zip(rows, table.to_dict("records"), strict=True):
        assert (record["grid_height"], record["grid_width"]) == GRIDS[row.category]
        width, height = SIZES[row.category]
        pixels = preprocess_image(load_image(row.path), width=width, height=height)
        expected = extractor.extract(torch.from_numpy(pixels)[None])[0][0].numpy()
        stop = start + len(expected)
        assert np.array_equal(patches[start:stop], expected.astype(np.float16).astype(np.float32))
        assert (record["image_sha256"], record["image_bytes"]) == (row.sha256, row.path.stat().st_size)
        start = stop
    assert start == len(patches)
    assert read_patches(table.iloc[2:3], store, dtype=np.float16).dtype == np.float16


def test_every_image_is_computed_once(
    rows: list[ImageRow], store: ArtifactStore, extractor: FeatureExtractor, passes: list[int]
) -> None:
    first = extract_features(rows[:4], store, extractor, SIZES, version="1")
    assert passes == [1] * 4
    again = extract_features(rows[::-1], store, extractor, SIZES, version="1")
    assert len(passes) == 6
    pd.testing.assert_frame_equal(again.iloc[:1:-1].reset_index(drop=True), first)
    for version in ("2", None):
        extract_features(rows, store, extractor, SIZES, version=version)
    assert len(passes) == 18


AS_READ_EARLIER = AS_EARLIER.of(None)


def test_another_size_or_backbone_is_another_entry(rows: list[ImageRow], extractor: FeatureExtractor) -> None:
    settings = extractor.settings

    def key(row: ImageRow = rows[0], size: tuple[int, int] = (64, 64), version: str = "1",
            reading: ImageReading = AS_READ_EARLIER, **changed: object) -> str:  # fmt: skip
        return feature_key(row.sha256, settings.model_copy(update=changed), size, version=version, reading=reading)

    keys = {
        key(),
        key(size=(64, 96)),
        key(rows[1]),
        key(neighborhood_size=5),
        key(alignment="corners_as_patchcore"),
        key(mean=(0.4, 0.4, 0.4)),
        key(weights_sha256="0" * 64),
        key(version="2"),
        key(reading=BY_TYPE),
        key(reading=ImageReading(value_range=4095)),
    }
    assert len(keys) == 10
    assert key(weights_path=Path("elsewhere.pth"), weights_source="a copy") == key()  # where the weights lie
    assert key(seed=9) == key()


def test_on_a_gpu_features_are_kept_by_how_it_computes(
    rows: list[ImageRow], store: ArtifactStore, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SmallGpu(extractor, at_a_time=32)

    def computed(**options: Any) -> int:
        before = sum(gpu.done)
        extract_features(rows, store, gpu, SIZES, version="1", **options)  # type: ignore[arg-type]
        return sum(gpu.done) - before

    extract_features(rows, store, extractor, SIZES, version="1")
    assert [computed(), computed(), computed(batch_size=2), computed(batch_size=2)] == [6, 0, 6, 0]
    for flag in ("allow_tf32", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, flag, not getattr(torch.backends.cudnn, flag))
        assert [computed(), computed()] == [6, 0]


def test_the_same_bytes_for_any_batch_size_workers_and_order(
    rows: list[ImageRow], tmp_path: Path, extractor: FeatureExtractor
) -> None:
    def hashes(name: str, chosen: list[ImageRow], batch_size: int, num_workers: int) -> dict[str, str]:
        table = extract_features(
            chosen, ArtifactStore(tmp_path / name), extractor, SIZES, batch_size=batch_size, num_workers=num_workers
        )
        return dict(zip(table.image_id, table.sha256, strict=True))

    reference = hashes("a", rows, 1, 1)
    assert hashes("b", rows, 32, 0) == reference
    assert hashes("c", rows[::-1], 2, 4) == reference


def test_a_lost_or_damaged_file_is_computed_again_and_named(
    rows: list[ImageRow],
    store: ArtifactStore,
    extractor: FeatureExtractor,
    passes: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = extract_features(rows, store, extractor, SIZES, version="1")
    (store.root / table.path[0]).unlink()
    truncate(store.root / table.path[1])
    with pytest.raises(ArtifactError, match="missing"):
        read_patches(table, store)
    with pytest.raises(ArtifactError, match="damaged"):
        read_patches(table.iloc[1:], store)
    passes.clear()
    with caplog.at_level(logging.WARNING):
        again = extract_features(rows, store, extractor, SIZES, version="1")
    assert passes == [1, 1]
    assert sorted(record.args[0] for record in caplog.records) == sorted(table.path[:2])  # type: ignore[index]
    pd.testing.assert_frame_equal(again, table)
    assert len(read_patches(again, store)) == 3 * 64 + 3 * 96


def test_a_file_that_changed_or_vanished_since_it_was_indexed_is_an_error(
    rows: list[ImageRow], store: ArtifactStore, extractor: FeatureExtractor
) -> None:
    rows[1].path.write_bytes(rows[0].path.read_bytes())
    with pytest.raises(DatasetError, match=r"has changed since it was indexed, and can be read: .* run again"):
        extract_features(rows, store, extractor, SIZES)
    rows[1].path.write_bytes(rows[0].path.read_bytes()[:99])
    with pytest.raises(DatasetError, match=r"indexed and can no longer be read: put it back as it was, or remove it"):
        extract_features(rows, store, extractor, SIZES)
    rows[2].path.unlink()
    with pytest.raises(FileNotFoundError, match="is gone since it was indexed"):
        extract_features(rows[2:], store, extractor, SIZES)


def test_features_that_are_not_finite_are_refused_with_a_reason(rows: list[ImageRow], store: ArtifactStore) -> None:
    class Broken(FeatureExtractor):
        def extract(self, pixels: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
            return torch.full((len(pixels), 4, 3), float("inf")), (2, 2)

    with pytest.raises(DatasetError, match=rf"{rows[0].path.name}: its features are not finite.*mean, std and weights"):
        extract_features(rows[:1], store, Broken("efficientnet_lite0"), SIZES)


class SmallGpu:
    """Runs out of memory above `at_a_time` images, as torch on a GPU does."""

    device = torch.device("cuda")

    def __init__(self, extractor: FeatureExtractor, at_a_time: int) -> None:
        self.settings = extractor.settings
        self.at_a_time = at_a_time
        self.extractor = extractor
        self.done: list[int] = []

    def extract(self, pixels: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        if len(pixels) > self.at_a_time:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.done.append(len(pixels))
        parts = [self.extractor.extract(pixels[i : i + 1])[0] for i in range(len(pixels))]
        return torch.cat(parts), (8, 8)

    def cells(self, size: tuple[int, int], grid: tuple[int, int]) -> Cells:
        return self.extractor.cells(size, grid)


@pytest.mark.parametrize(("at_a_time", "batches"), [(4, [3]), (2, [1, 2]), (1, [1, 1, 1]), (0, [])])
def test_out_of_gpu_memory_takes_fewer_images_then_the_cpu(
    root: Path,
    tmp_path: Path,
    extractor: FeatureExtractor,
    caplog: pytest.LogCaptureFixture,
    at_a_time: int,
    batches: list[int],
) -> None:
    index = index_dataset(root, categories=["pipe_clip"])
    rows = image_rows(index[index.split == "train"], root)
    gpu = SmallGpu(extractor, at_a_time)
    with caplog.at_level(logging.WARNING):
        table = extract_features(rows, ArtifactStore(tmp_path / "a"), gpu, SIZES, batch_size=4)  # type: ignore[arg-type]
    assert gpu.done == batches
    assert any("out of GPU memory" in record.message for record in caplog.records) == (at_a_time < 3)
    assert any("CPU" in record.message for record in caplog.records) == (at_a_time == 0)
    expected = extract_features(rows, ArtifactStore(tmp_path / "b"), extractor, SIZES)
    assert table.sha256.tolist() == expected.sha256.tolist()


def test_decoding_runs_only_a_little_ahead(
    root: Path, store: ArtifactStore, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded: not all images are decoded before the first is computed."""
    index = index_dataset(root, categories=["pipe_clip"])
    rows = image_rows(index[index.split == "train"], root)[:1] * 40
    loaded: list[int] = []
    ahead: list[int] = []
    pixels = torch.zeros(64, 64, 3, dtype=torch.uint8)
    monkeypatch.setattr(extraction, "_load_pixels", lambda *_args: loaded.append(1) or pixels)
    original = extractor.extract

    def extract(batch: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        ahead.append(len(loaded) - len(ahead))
        return original(batch)

    monkeypatch.setattr(extractor, "extract", extract)
    extract_features(rows, store, extractor, SIZES, num_workers=2)
    assert len(ahead) == 40
    assert max(ahead) <= 5
