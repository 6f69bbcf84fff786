"""The functions of a user's that a configuration names, each called once before anything else.

A name that is wrong, or a function that fails, would otherwise show after hours of extraction, or not at all, where a
strategy has nothing to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import pandas as pd

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError, FedpatchError
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.extensions import checked_indices, load_extension
from pipeline_lib.features.backbone import resolve_backbone
from pipeline_lib.features.extraction import shared_extractor
from pipeline_lib.partition.assignment import partition_images
from pipeline_lib.when_needed import torch

EXAMPLE_CLIENTS, EXAMPLE_ROWS, EXAMPLE_DIM = 3, 8, 32


def try_extensions(
    config: ExperimentConfig, *, keys: Collection[str] | None = None, index: pd.DataFrame | None = None
) -> None:
    """Resolve and call each `module:function` of the configuration, or of those `keys` alone.

    The backbone gets one blank image of the size that the run gives it; the strategy a few made-up rows of three
    clients; the partitioner the images of `index` (`pipeline_lib.planning.experiment.list_images`), and is left out
    without one.
    Raises ConfigError naming key and function where it is not there, fails, or gives what cannot be used.
    """
    trials: Mapping[str, Callable[[], object]] = {
        "model.backbone": lambda: _try_backbone(config, index),
        "federated.partitioning": lambda: _try_partitioner(config, index),
        "aggregation.strategy": lambda: _try_strategy(config),
    }
    for key, name in config.extensions().items():
        if keys is not None and key not in keys:
            continue
        try:
            trials[key]()
        except FedpatchError:
            raise
        except Exception as error:  # whatever a user's function raises is said of that function
            raise ConfigError(f"{key}: {name} failed when it was tried: {type(error).__name__}: {error}") from error


def _try_backbone(config: ExperimentConfig, index: pd.DataFrame | None) -> None:
    settings = resolve_backbone(config.model, config.preprocessing, seed=config.seed)
    is_listed = index is not None and len(index) > 0
    width, height = config.preprocessing.size(index.category.iloc[0] if is_listed else "")  # type: ignore[union-attr]
    shared_extractor(settings, torch.device("cpu"))(torch.zeros(1, 3, height, width))


def _try_partitioner(config: ExperimentConfig, index: pd.DataFrame | None) -> None:
    if index is not None:
        federated = config.federated.model_copy(update={"mode": "federated"})
        partition_images(index, federated, rng=stage_rng(config.seed, "partition"))


def _try_strategy(config: ExperimentConfig) -> None:
    name = config.aggregation.strategy
    rng = stage_rng(config.seed, "try strategy")
    row_client = np.repeat(np.arange(EXAMPLE_CLIENTS, dtype=np.int32), EXAMPLE_ROWS)
    rows = rng.random((len(row_client), EXAMPLE_DIM), dtype=np.float32)
    target = len(rows) // 2
    select = load_extension(name, "aggregation_strategy", key="aggregation.strategy")
    checked_indices(name, select(rows, row_client, target, rng=rng), len(rows), target)
