"""AutoVIDataset and AutoVISubset, alone and under torch's DataLoader."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_contracts.config import PreprocessingConfig
from data_contracts.errors import DatasetError
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset, AutoVISubset
from pipeline_lib.features.preprocessing import get_transforms
from tests.dataset_fixtures import truncate, write_tiny_autovi, write_tiny_mvtec

torch.set_num_threads(1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny_autovi(tmp_path, categories=("pipe_clip", "tank_screw"))


def transform(category: str) -> Any:
    config = PreprocessingConfig(small_size=(40, 32), large_size=(40, 32))
    return get_transforms(category, mean=(0.5,) * 3, std=(0.5,) * 3, config=config)


def test_samples_of_each_split(root: Path) -> None:
    train = AutoVIDataset(root)
    assert len(train) == 12
    assert train.samples[0] == (str(root / "pipe_clip/train/good/0000.png"), 0, "pipe_clip", "good")
    assert {label for _, label, _, _ in train.samples} == {0}
    test = AutoVIDataset(root, split="test", categories=["tank_screw"])
    assert [(label, kind) for _, label, _, kind in test.samples] == (
        [(0, "good")] * 4 + [(1, "missing")] * 3 + [(1, "scratch")] * 3
    )
    assert len(AutoVIDataset(root, split="test", include_good_only=True)) == 8
    assert {name: [entry.defect_name for entry in entries] for name, entries in test.defects_config.items()} == {
        "tank_screw": ["scratch", "missing"]
    }
    with pytest.raises(DatasetError, match="split is 'val'; it must be train or test"):
        AutoVIDataset(root, split="val")  # type: ignore[arg-type]


def test_items_are_dictionaries_and_batch(root: Path) -> None:
    plain = AutoVIDataset(root, split="test")
    item = plain[5]
    assert (item["label"], item["category"], item["defect_type"]) == (1, "pipe_clip", "missing")
    assert item["path"] == plain.samples[5][0]
    assert (item["image"].mode, item["image"].size) == ("RGB", (64, 48))
    dataset = AutoVIDataset(root, transform=transform("pipe_clip"))
    batch = next(iter(DataLoader(dataset, batch_size=5)))  # type: ignore[arg-type]
    assert batch["image"].shape == (5, 3, 32, 40)
    assert batch["category"] == ["pipe_clip"] * 5


def test_a_transform_for_each_category(root: Path) -> None:
    by_category = {"pipe_clip": transform("pipe_clip"), "tank_screw": lambda image: image.size}
    dataset = AutoVIDataset(root, transform=by_category)
    assert dataset[0]["image"].shape == (3, 32, 40)
    assert dataset[11]["image"] == (64, 48)
    with pytest.raises(DatasetError, match="none for tank_screw"):
        AutoVIDataset(root, transform={"pipe_clip": by_category["pipe_clip"]})


def test_ground_truth_is_the_union_of_the_channels(root: Path) -> None:
    dataset = AutoVIDataset(root, split="test", categories=["pipe_clip"])
    assert not dataset.get_ground_truth(0).any()
    assert dataset.get_ground_truth_channels(0) == {}
    mask = dataset.get_ground_truth(4)
    assert (mask.shape, mask.dtype) == ((48, 64), np.uint8)
    by_defect = dataset.get_ground_truth_channels(4)
    assert {name: len(channels) for name, channels in by_defect.items()} == {"missing": 2}
    first, second = by_defect["missing"]
    assert np.array_equal(mask, (first.mask | second.mask).astype(np.uint8))
    assert np.array_equal(mask == 1, (np.array(dataset[4]["image"]) == 0).all(axis=2)), "the mask lies on the defect"
    assert not AutoVIDataset(root).get_ground_truth(0).any()


def test_statistics_and_category_indices(root: Path) -> None:
    truncate(root / "pipe_clip/test/missing/0001.png")
    dataset = AutoVIDataset(root, split="test")
    statistics = dataset.get_statistics()
    assert statistics["total"] == 19
    assert statistics["by_category"] == {"pipe_clip": 9, "tank_screw": 10}
    assert statistics["by_defect_type"] == {"good": 8, "missing": 5, "scratch": 6}
    assert statistics["by_label"] == {"good": 8, "defective": 11}
    assert statistics["categories"]["pipe_clip"]["by_defect_type"] == {"good": 4, "missing": 2, "scratch": 3}
    assert statistics["quarantined"] == 1
    assert dataset.get_category_indices("tank_screw") == list(range(9, 19))
    assert dataset.get_category_indices("bolt") == []


def test_unreadable_images_are_set_aside_and_listed(root: Path) -> None:
    broken = root / "pipe_clip/train/good/0002.png"
    truncate(broken)
    dataset = AutoVIDataset(root)
    assert len(dataset) == 11
    ((path, reason),) = dataset.quarantined
    assert path == str(broken)
    assert "truncated" in reason
    assert str(broken) not in {sample[0] for sample in dataset.samples}


def test_subset_delegates_by_position(root: Path) -> None:
    dataset = AutoVIDataset(root)
    subset = AutoVISubset(dataset, [7, 2, 2])
    assert len(subset) == 3
    assert [subset[position]["path"] for position in range(3)] == [dataset.samples[i][0] for i in (7, 2, 2)]
    assert subset.samples[0] is dataset.samples[7]
    assert subset.get_category_indices("pipe_clip") == [1, 2]
    for outside in (12, -1):
        with pytest.raises(DatasetError, match=f"index {outside} is outside the data set's 0 to 11"):
            AutoVISubset(dataset, [0, outside])


def test_other_layouts_and_data_without_a_config(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (root / "pipe_clip/defects_config.json").unlink()
    assert list(AutoVIDataset(root).defects_config) == ["tank_screw"]
    shutil.rmtree(root / "tank_screw/train")
    assert len(AutoVIDataset(root, split="test")) == 20, "a test set needs no training images"
    mvtec = AutoVIDataset(write_tiny_mvtec(tmp_path_factory.mktemp("mvtec")), split="test", layout="mvtec")
    assert mvtec.get_ground_truth(4).any()
    assert mvtec.defects_config == {}
