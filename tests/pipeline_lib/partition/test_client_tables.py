"""What each client and each category's test may see of the dataset index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from data_contracts.errors import DatasetError
from data_contracts.tables import CLIENT_IMAGES, DATASET_INDEX
from pipeline_lib.dataset.index import category_test_table, ground_truth_sha256, index_dataset, refuse_bad_images
from pipeline_lib.partition.assignment import client_table
from tests.dataset_fixtures import truncate, write_tiny_autovi, write_tiny_folder, write_tiny_mvtec


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny_autovi(tmp_path / "data", categories=("pipe_clip", "tank_screw"), train=4, good=2, defective=2)


def test_a_client_sees_its_own_images_in_index_order(root: Path) -> None:
    index = index_dataset(root)
    train = index[index.split == "train"].image_id.tolist()
    partition = pd.DataFrame({"image_id": train[::-1], "client_id": ["a", "b"] * 4})
    table = client_table(index, partition, "a")
    assert table.image_id.tolist() == train[1::2]
    assert list(table.index) == list(range(4))
    pa.Table.from_pandas(table, schema=CLIENT_IMAGES, preserve_index=False)
    assert set(table.columns) == set(CLIENT_IMAGES.names)  # neither labels nor anything else
    both = [*table.image_id, *client_table(index, partition, "b").image_id]
    assert sorted(both) == sorted(train)
    assert client_table(index, partition, "c").empty


def test_a_category_is_tested_on_its_readable_test_images(root: Path) -> None:
    truncate(root / "pipe_clip/test/scratch/0001.png")
    table = category_test_table(index_dataset(root), "pipe_clip")
    assert table.image_id.tolist() == [
        f"pipe_clip/test/{name}" for name in ("good/0000", "good/0001", "missing/0000", "missing/0001", "scratch/0000")
    ]
    assert list(table.index) == list(range(5))
    pa.Table.from_pandas(table, schema=DATASET_INDEX, preserve_index=False)
    assert category_test_table(index_dataset(root), "no_such").empty


def test_bad_images_are_refused_with_their_names_and_reasons(root: Path) -> None:
    refuse_bad_images(index_dataset(root))
    for number in range(4):
        truncate(root / f"tank_screw/train/good/{number:04d}.png")
    with pytest.raises(DatasetError, match=r"4 images cannot be read and dataset.on_bad_image is fail: .*truncated"):
        refuse_bad_images(index_dataset(root))


def truth(root: Path, category: str = "pipe_clip") -> str:
    return ground_truth_sha256(index_dataset(root), root, category, layout="autovi")


def test_truth_changes_with_masks_and_config_of_the_category_and_with_nothing_else(root: Path) -> None:
    before, other = truth(root), truth(root, "tank_screw")
    directory = root / "pipe_clip"
    shutil.copyfile(directory / "test/good/0000.png", directory / "train/good/0000.png")
    assert truth(root) == before
    mask = directory / "ground_truth/scratch/0001/0000.png"
    content = mask.read_bytes()
    mask.write_bytes(content + b" ")
    changed = truth(root)
    assert changed != before
    mask.write_bytes(content)
    assert truth(root) == before
    mask.rename(mask.with_name("0001.png"))
    renamed = truth(root)
    assert renamed not in (before, changed)
    entries = json.loads((directory / "defects_config.json").read_text())
    entries[0]["saturation_threshold"] = 0.75
    (directory / "defects_config.json").write_text(json.dumps(entries))
    assert truth(root) not in (before, changed, renamed)
    assert truth(root, "tank_screw") == other


def test_truth_without_masks_or_config(tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "a")
    shutil.rmtree(root / "pipe_clip/ground_truth")
    (root / "pipe_clip/defects_config.json").unlink()
    folder = write_tiny_folder(tmp_path / "b/part").parent
    nothing = truth(root)
    assert ground_truth_sha256(index_dataset(folder, layout="folder"), folder, "part", layout="folder") == nothing
    mvtec = write_tiny_mvtec(tmp_path / "c")
    assert ground_truth_sha256(index_dataset(mvtec, layout="mvtec"), mvtec, "bottle", layout="mvtec") != nothing
