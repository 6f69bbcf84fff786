"""Cutting the dataset index into what each client and each category's test may see."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from data_contracts.errors import DatasetError
from data_contracts.tables import CLIENT_IMAGES
from pipeline_lib.dataset.index import DEFECTS_CONFIG, Layout, category_directory, mask_files


def client_table(index: pd.DataFrame, partition: pd.DataFrame, client_id: str) -> pd.DataFrame:
    """The training images of one client, in index order, in schema CLIENT_IMAGES."""
    own = set(partition.loc[partition.client_id == client_id, "image_id"])
    rows: pd.DataFrame = index.loc[index.image_id.isin(own), CLIENT_IMAGES.names]
    return rows.reset_index(drop=True)


def category_test_table(index: pd.DataFrame, category: str) -> pd.DataFrame:
    """The readable test images of one category, in index order."""
    rows = index[(index.category == category) & (index.split == "test") & (index.problem == "")]
    return rows.reset_index(drop=True)


def refuse_bad_images(index: pd.DataFrame) -> None:
    """Raise DatasetError, naming the first images that cannot be read (`dataset.on_bad_image: fail`)."""
    bad = index[index.problem != ""]
    if len(bad):
        first = "; ".join(f"{row['path']}: {row['problem']}" for row in bad.head(3).to_dict("records"))
        raise DatasetError(f"{len(bad)} images cannot be read and dataset.on_bad_image is fail: {first}")


def ground_truth_sha256(index: pd.DataFrame, root: Path, category: str, *, layout: Layout) -> str:
    """SHA-256 over the content of a category's masks and defects_config.json: what its metrics depend on."""
    digest = hashlib.sha256()
    directory = category_directory(root, category, layout=layout)
    files = [directory / DEFECTS_CONFIG]
    for row in index[(index.category == category) & (index.label_index == 1)].to_dict("records"):
        files += mask_files(directory, row["label"], Path(row["path"]).stem, layout=layout)
    for file in files:
        if file.is_file():
            content = file.read_bytes()
            digest.update(f"{file.relative_to(directory).as_posix()} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()
