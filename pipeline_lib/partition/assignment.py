"""Who holds which training image: one client for everything, or several by chance, category, time or Dirichlet draw.

The functions work on positions (0, 1, ... in the order of the index) and give each position to exactly one client.
The classes are the same functions for an `AutoVIDataset`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from data_contracts.config import FederatedConfig
from data_contracts.errors import ConfigError, DatasetError
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset, AutoVISubset
from pipeline_lib.extensions import checked_shards, load_extension
from pipeline_lib.partition.saved import saved_assignment, saved_clients

CENTRALIZED_CLIENT = "centralized"
ALL_CATEGORIES = "all"

Shards = dict[str, list[int]]


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


def shard_positions(
    categories: Sequence[str],
    federated: FederatedConfig,
    *,
    rng: np.random.Generator,
    image_ids: Sequence[str] | None = None,
) -> Shards:
    """Positions of each client, ascending; `categories[i]` is the category of position i. Clients may be empty.

    `image_ids` are for a partitioner of the user's (`pipeline_lib.extensions`), which gets category/position otherwise.
    """
    if federated.mode == "centralized":
        return {CENTRALIZED_CLIENT: list(range(len(categories)))}
    match federated.partitioning:
        case "iid":
            return iid_shards(len(categories), federated.num_clients, rng=rng)
        case "category":
            return category_shards(categories, federated.client_assignments, federated.qc_sample_ratio, rng=rng)
        case "time":
            return time_shards(categories, federated.num_clients)
        case "dirichlet":
            return dirichlet_shards(categories, federated.num_clients, federated.alpha, rng=rng)
        case "saved":
            raise ConfigError("federated.partitioning: saved goes by image ids; use partition_images")
        case name:
            ids = image_ids or [f"{category}/{position}" for position, category in enumerate(categories)]
            cut = load_extension(name, "partitioner", key="federated.partitioning")
            return checked_shards(
                name, cut(ids, categories, federated, rng=rng), federated.client_names(), len(categories)
            )


def iid_shards(n_images: int, num_clients: int, *, rng: np.random.Generator) -> Shards:
    """All positions shuffled and cut into parts whose sizes differ by one at most."""
    return _named(np.array_split(rng.permutation(n_images), num_clients))


def time_shards(categories: Sequence[str], num_clients: int) -> Shards:
    """The k-th contiguous part of every category goes to client k: each client sees its own stretch of time."""
    parts: list[list[int]] = [[] for _ in range(num_clients)]
    for positions in _by_category(categories).values():
        for part, shard in zip(parts, np.array_split(positions, num_clients), strict=True):
            part.extend(shard.tolist())
    return _named(parts)


def dirichlet_shards(categories: Sequence[str], num_clients: int, alpha: float, *, rng: np.random.Generator) -> Shards:
    """Each category is cut in proportions drawn from a symmetric Dirichlet distribution over the clients.

    Small `alpha` gives nearly all of a category to few clients, large `alpha` equal parts. Source: Hsu, Qi and Brown
    2019, "Measuring the effects of non-identical data distribution for federated visual classification", applied to
    each category on its own, in shuffled order. Clients may end up without images.
    """
    parts: list[list[int]] = [[] for _ in range(num_clients)]
    for _, positions, category_rng in _categories_with_rng(categories, rng):
        proportions = category_rng.dirichlet(np.full(num_clients, alpha))
        cuts = np.rint(np.cumsum(proportions)[:-1] * len(positions)).astype(np.int64)
        for part, shard in zip(parts, np.split(category_rng.permutation(positions), cuts), strict=True):
            part.extend(shard.tolist())
    return _named(parts)


def category_shards(
    categories: Sequence[str],
    client_assignments: Mapping[str, Sequence[str]],
    qc_sample_ratio: float,
    *,
    rng: np.random.Generator,
) -> Shards:
    """Each client holds its categories; quality-control clients (`all`) first draw a sample of every category.

    A quality-control client draws round(qc_sample_ratio x images) of each category without replacement: at least one
    where there are two or more images, and never the last one of a category that a specialised client owns. The rest
    goes to the specialised client, or is split evenly, by chance, between several owners. Where all clients are
    quality control, they share every category evenly.

    Raises ConfigError when images are left that no client owns, and when `all` stands beside other names.
    """
    quality_control = [client for client, names in client_assignments.items() if ALL_CATEGORIES in names]
    for client in quality_control:
        if len(client_assignments[client]) > 1:
            raise ConfigError(
                f"federated.client_assignments.{client} is {list(client_assignments[client])}: "
                f"[{ALL_CATEGORIES}] stands alone; name the categories, or only {ALL_CATEGORIES}"
            )
    only_quality_control = len(quality_control) == len(client_assignments)
    shards: Shards = {client: [] for client in client_assignments}
    unowned: list[str] = []
    for category, positions, category_rng in _categories_with_rng(categories, rng):
        owners = [client for client, names in client_assignments.items() if category in names]
        if only_quality_control:
            owners = quality_control
        if not owners:
            unowned.append(category)
            continue
        rest = category_rng.permutation(positions)
        wanted = max(round(qc_sample_ratio * len(positions)), 1)
        for client in quality_control if not only_quality_control else ():
            drawn = min(wanted, len(rest) - 1)
            shards[client].extend(rest[:drawn].tolist())
            rest = rest[drawn:]
        for client, shard in zip(owners, np.array_split(rest, len(owners)), strict=True):
            shards[client].extend(shard.tolist())
    if unowned:
        raise ConfigError(
            f"federated.client_assignments gives no client the categories {unowned}, of which there are images; "
            f"assign them, or narrow dataset.categories to {sorted(set(categories) - set(unowned))}"
        )
    return {client: sorted(positions) for client, positions in shards.items()}


def _named(parts: Sequence[Sequence[int] | np.ndarray]) -> Shards:
    return {f"client_{number}": sorted(int(i) for i in part) for number, part in enumerate(parts)}


def _by_category(categories: Sequence[str]) -> dict[str, np.ndarray]:
    names = np.asarray(categories, dtype=object)
    return {name: np.flatnonzero(names == name) for name in sorted(set(categories))}


def _categories_with_rng(
    categories: Sequence[str], rng: np.random.Generator
) -> list[tuple[str, np.ndarray, np.random.Generator]]:
    """Each category has a generator of its own, so that leaving one out does not move the images of the others."""
    base = int(rng.integers(2**63))
    return [
        (name, positions, np.random.default_rng([base, zlib.crc32(name.encode())]))
        for name, positions in _by_category(categories).items()
    ]


# --- files -------------------------------------------------------------------------------------------------------


# --- the guide's classes -----------------------------------------------------------------------------------------


class _Partitioner:
    """A partitioning strategy for the guide's data set class. The same seed gives the same partition."""

    def __init__(self, seed: int, **federated: Any) -> None:
        self.seed = seed
        try:
            self.federated = FederatedConfig(mode="federated", **federated)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"{type(self).__name__}: {problems}") from error

    def partition(self, dataset: AutoVIDataset) -> Shards:
        """Client id -> indices into `dataset`, ascending; every index once."""
        categories = [category for _, _, category, _ in dataset.samples]
        return shard_positions(categories, self.federated, rng=np.random.default_rng(self.seed))

    def create_subsets(self, dataset: AutoVIDataset) -> dict[str, AutoVISubset]:
        """Client id -> a view of `dataset` with that client's images."""
        return {client: AutoVISubset(dataset, indices) for client, indices in self.partition(dataset).items()}


class IIDPartitioner(_Partitioner):
    """Equal parts by chance (`iid_shards`)."""

    def __init__(self, num_clients: int, seed: int = 42) -> None:
        super().__init__(seed, partitioning="iid", num_clients=num_clients)


class CategoryPartitioner(_Partitioner):
    """Stations with their own categories, and quality control with a sample of all (`category_shards`)."""

    def __init__(
        self, client_assignments: Mapping[Any, Sequence[str]], qc_sample_ratio: float = 0.1, seed: int = 42
    ) -> None:
        super().__init__(
            seed,
            partitioning="category",
            client_assignments=dict(client_assignments),
            qc_sample_ratio=qc_sample_ratio,
        )


class TimePartitioner(_Partitioner):
    """Contiguous stretches of time (`time_shards`)."""

    def __init__(self, num_clients: int, seed: int = 42) -> None:
        super().__init__(seed, partitioning="time", num_clients=num_clients)


class DirichletPartitioner(_Partitioner):
    """Unequal shares of each category (`dirichlet_shards`)."""

    def __init__(self, num_clients: int, alpha: float = 0.5, seed: int = 42) -> None:
        super().__init__(seed, partitioning="dirichlet", num_clients=num_clients, alpha=alpha)
