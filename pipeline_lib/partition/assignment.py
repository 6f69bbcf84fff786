"""Who holds which training image of the index: one client for everything, or several by shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.config import FederatedConfig
from data_contracts.errors import DatasetError
from data_contracts.manifests import CENTRALIZED_CLIENT
from data_contracts.tables import CLIENT_IMAGES
from pipeline_lib.partition.saved import saved_assignment, saved_clients
from pipeline_lib.partition.shards import shard_positions


def partition_images(index: pd.DataFrame, federated: FederatedConfig, *, rng: np.random.Generator) -> pd.DataFrame:
    """Give every readable training image to one client.

    `index` is a data set index (`data_contracts.tables.DATASET_INDEX`); only rows with split "train", label "good" and
    no problem take part. Returns a frame in the schema PARTITION, in the order of the index.
    Raises DatasetError when there is no such image, and ConfigError as `category_shards` does.
    """
    usable = index[(index["split"] == "train") & (index["label"] == "good") & (index["problem"] == "")]
    if usable.empty:
        raise DatasetError(
            f"no readable training image among the {len(index)} rows of the data set index; "
            "good images are expected in <category>/train/good"
        )
    if federated.mode != "centralized" and federated.partitioning == "saved":
        return saved_assignment(usable["image_id"].tolist(), _saved_path(federated))
    image_ids = usable["image_id"].tolist()
    shards = shard_positions(usable["category"].tolist(), federated, rng=rng, image_ids=image_ids)
    clients = np.empty(len(usable), dtype=object)
    for client_id, positions in shards.items():
        clients[positions] = client_id
    return pd.DataFrame({"image_id": image_ids, "client_id": clients.tolist()})


def client_ids(federated: FederatedConfig) -> tuple[str, ...]:
    """The clients that the configuration names, with or without images."""
    if federated.mode == "centralized":
        return (CENTRALIZED_CLIENT,)
    if federated.partitioning == "saved":
        return saved_clients(_saved_path(federated))
    return federated.client_names()


def _saved_path(federated: FederatedConfig) -> Path:
    assert federated.partition_path is not None  # the configuration was validated
    return federated.partition_path


def client_table(index: pd.DataFrame, partition: pd.DataFrame, client_id: str) -> pd.DataFrame:
    """The training images of one client, in index order, in schema CLIENT_IMAGES."""
    own = set(partition.loc[partition.client_id == client_id, "image_id"])
    rows: pd.DataFrame = index.loc[index.image_id.isin(own), CLIENT_IMAGES.names]
    return rows.reset_index(drop=True)
