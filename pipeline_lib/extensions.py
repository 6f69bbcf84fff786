"""A user's own backbone, partitioner or aggregation strategy, named `module:function` where a configuration takes one.

The function is marked by one of the decorators below, so that a configuration can call nothing else; its module has to
be importable wherever the step runs (PYTHONPATH). docs/extending.md has an example of each.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from data_contracts.config import EXTENSION_PATTERN, FederatedConfig
from data_contracts.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["backbone", "partitioner", "aggregation_strategy"]
BackboneBuilder = Callable[[], "nn.Module"]
_MARK = "__fedpatch_extension__"


class PartitionerFunction(Protocol):
    """Client id -> positions of its images; clients are `federated.client_names()`, every position is there once."""

    def __call__(
        self,
        image_ids: Sequence[str],
        categories: Sequence[str],
        federated: FederatedConfig,
        *,
        rng: np.random.Generator,
    ) -> Mapping[str, Sequence[int]]: ...


class AggregationFunction(Protocol):
    """Indices of the rows that the bank keeps, at most `target`; called where there are more rows than that.

    rows: float32 (row, dim), one upload after the other, each in the order of its selection; row_client: int32 (row,).
    """

    def __call__(
        self, rows: np.ndarray, row_client: np.ndarray, target: int, *, rng: np.random.Generator
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class BackboneExtension:
    """What `@backbone` says about the network that the function builds."""

    build: BackboneBuilder
    layers: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def backbone(
    *, layers: Sequence[str], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Callable[[BackboneBuilder], BackboneBuilder]:
    """Mark a function without arguments that builds a network, with its weights, from (batch, 3, height, width).

    `layers` are the usual choice among its named modules, each giving (batch, channel, height, width); `mean` and `std`
    normalize pixels in [0, 1]. Initial weights are drawn from `seed` of the configuration.
    """

    def mark(build: BackboneBuilder) -> BackboneBuilder:
        setattr(build, _MARK, ("backbone", BackboneExtension(build, tuple(layers), mean, std)))
        return build

    return mark


def partitioner(function: PartitionerFunction) -> PartitionerFunction:
    """Mark a function as a value of `federated.partitioning`."""
    setattr(function, _MARK, ("partitioner", function))
    return function


def aggregation_strategy(function: AggregationFunction) -> AggregationFunction:
    """Mark a function as a value of `aggregation.strategy`."""
    setattr(function, _MARK, ("aggregation_strategy", function))
    return function


def is_extension(name: str) -> bool:
    """Whether a value names a function of the user's, `module:function`."""
    return re.fullmatch(EXTENSION_PATTERN, name) is not None


def load_extension(name: str, kind: Kind, *, key: str) -> Any:
    """What was marked: the function, or the BackboneExtension.

    Raises ConfigError, beginning with the configuration's `key`, when the module cannot be imported, has no such
    function, or the function is not marked as this kind.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: cannot import {module_name} of {name!r} ({error}); put its directory on PYTHONPATH"
        ) from error
    found_kind, value = getattr(getattr(module, function_name, None), _MARK, (None, None))
    if found_kind != kind:
        raise ConfigError(
            f"{key}: {name!r} is no {kind}; {module_name} needs a function {function_name} with "
            f"@pipeline_lib.extensions.{kind}"
        )
    return value


def extension_digest(name: str) -> str:
    """SHA-256 of the source file that a name refers to, so that a changed function is run again.

    What the module imports does not count. Raises ConfigError when the module cannot be found.
    """
    module_name = name.partition(":")[0]
    try:
        source = inspect.getsourcefile(importlib.import_module(module_name))
    except (ImportError, TypeError) as error:
        raise ConfigError(
            f"cannot import {module_name} of {name!r} ({error}); put its directory on PYTHONPATH"
        ) from error
    return hashlib.sha256(Path(source or "").read_bytes()).hexdigest() if source else module_name


def checked_shards(
    name: str, shards: Mapping[str, Sequence[int]], clients: Sequence[str], n_images: int
) -> dict[str, list[int]]:
    """What a partitioner of the user's gave, as client id -> positions, ascending, for all clients.

    Raises ConfigError when it names other clients, or not every position once.
    """
    if unknown := sorted(set(shards) - set(clients)):
        raise ConfigError(f"federated.partitioning: {name} gives images to {', '.join(unknown)}, which is no client")
    positions = sorted(int(position) for shard in shards.values() for position in shard)
    if positions != list(range(n_images)):
        raise ConfigError(f"federated.partitioning: {name} has to give each of the {n_images} images to one client")
    return {client: sorted(int(position) for position in shards.get(client, ())) for client in clients}


def checked_indices(name: str, indices: np.ndarray, n_rows: int, target: int) -> np.ndarray:
    """What a strategy of the user's gave, as int64 (kept,).

    Raises ConfigError unless these are 1 to `target` different indices into the rows.
    """
    kept = np.asarray(indices)
    if (
        kept.ndim != 1
        or not np.issubdtype(kept.dtype, np.integer)
        or not 1 <= len(kept) <= target
        or len(np.unique(kept)) != len(kept)
        or kept.min() < 0
        or kept.max() >= n_rows
    ):
        raise ConfigError(
            f"aggregation.strategy: {name} has to return 1 to {target} different indices into {n_rows} rows, "
            f"got {kept.dtype} of shape {kept.shape}"
        )
    return kept.astype(np.int64)
