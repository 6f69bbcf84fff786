"""Positions (0, 1, ... in the order of the index) cut into shards, as the configuration says.

Each position is given to exactly one shard.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_contracts.config import FederatedConfig
from data_contracts.errors import ConfigError
from data_contracts.manifests import CENTRALIZED_CLIENT
from pipeline_lib.extensions import checked_shards, load_extension

ALL_CATEGORIES = "all"
Shards = dict[str, list[int]]


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
