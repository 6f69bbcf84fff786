"""Who holds which training image of the index: one client for everything, or several by shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from data_contracts.config import FederatedConfig
from data_contracts.errors import ConfigError, DatasetError
from data_contracts.manifests import CENTRALIZED_CLIENT
from data_contracts.tables import CLIENT_IMAGES
from pipeline_lib.partition.saved import saved_assignment, saved_clients
from pipeline_lib.partition.shards import shard_positions


def partition_images(
    index: pd.DataFrame,
    federated: FederatedConfig,
    *,
    rng: np.random.Generator,
    group_of: Mapping[str, str] = MappingProxyType({}),
) -> pd.DataFrame:
    """Give every readable training image to one client.

    `index` is a data set index (`data_contracts.tables.DATASET_INDEX`); only rows with split "train", label "good" and
    no problem take part. Returns a frame in the schema PARTITION, in the order of the index. With `partition_groups`
    the images of a group (`group_of`: image_id -> group, where it has one) are given away together, as the first is.
    Raises DatasetError when there is no such image, and ConfigError as `category_shards` does, and for a saved
    partition that parts a group which should stay whole.
    """
    usable = index[(index["split"] == "train") & (index["label"] == "good") & (index["problem"] == "")]
    if usable.empty:
        raise DatasetError(
            f"no readable training image among the {len(index)} rows of the data set index; "
            "good images are expected in <category>/train/good"
        )
    if federated.mode != "centralized" and federated.partitioning == "saved":
        saved = saved_assignment(usable["image_id"].tolist(), _saved_path(federated))
        if federated.partition_groups and (parted := parted_groups(saved, group_of)):
            raise ConfigError(
                f"federated.partition_groups: the partition in {federated.partition_path} parts {len(parted)} groups, "
                f"such as {parted[0]}; make it again, or leave partition_groups out"
            )
        return saved
    image_ids, categories = usable["image_id"].tolist(), usable["category"].tolist()
    units: dict[str, list[int]] = {}  # positions that go to one client
    for position, image_id in enumerate(image_ids):
        group = group_of.get(image_id, image_id) if federated.partition_groups else image_id
        units.setdefault(group, []).append(position)
    members = list(units.values())
    shards = shard_positions(
        [categories[own[0]] for own in members], federated, rng=rng, image_ids=[image_ids[own[0]] for own in members]
    )
    clients = np.empty(len(usable), dtype=object)
    for client_id, given in shards.items():
        clients[[position for unit in given for position in members[unit]]] = client_id
    return pd.DataFrame({"image_id": image_ids, "client_id": clients.tolist()})


def parted_groups(partition: pd.DataFrame, group_of: Mapping[str, str]) -> list[str]:
    """The groups of which several clients have images, by name."""
    clients: dict[str, set[str]] = {}
    for image_id, client in zip(partition["image_id"], partition["client_id"], strict=True):
        if image_id in group_of:
            clients.setdefault(group_of[image_id], set()).add(client)
    return sorted(group for group, found in clients.items() if len(found) > 1)


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
