"""The guide's partitioners: the shards of an `AutoVIDataset`, one class a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from data_contracts.config import FederatedConfig
from data_contracts.errors import ConfigError
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset, AutoVISubset
from pipeline_lib.partition.shards import Shards, shard_positions


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
