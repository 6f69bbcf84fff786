"""The paths that a configuration names, looked at before anything else: in a moment, without torch and a server.

What a run would say of them after its imports is said at once, with the same words: each rule is its owner's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from data_contracts.config import ExperimentConfig
from data_contracts.settings import RUNS, Place, default_store, place_of
from pipeline_lib.configuration.files import given_weights
from pipeline_lib.dataset.layout import resolved_layout, select_categories
from pipeline_lib.partition.saved import load_partition
from pipeline_lib.storage import writable


def refuse_wrong_paths(configs: Iterable[ExperimentConfig], *, out: Path | None = None) -> list[Place]:
    """The place of each run, where its data set, saved partition and weights are there and its results can be written.

    Raises ConfigError, PlaceError, DatasetError, ArtifactError or WeightsError naming the first that is not so.
    """
    configs = list(configs)
    places = [place_of(config) for config in configs]
    refuse_unwritable(configs, out=out)
    seen: set[tuple[object, ...]] = set()
    for config, place in zip(configs, places, strict=True):
        dataset, partition = config.dataset, config.federated.partition_path
        own = (place.data_root, dataset.layout, dataset.categories, partition, config.model.weights_path)
        if own in seen:
            continue
        seen.add(own)
        layout = resolved_layout(dataset.layout, place.data_root)
        select_categories(place.data_root, layout=layout, categories=dataset.categories)
        given_weights(config.model)
        if partition is not None:
            load_partition(partition)
    return places


def refuse_unwritable(configs: Iterable[ExperimentConfig], *, out: Path | None = None) -> None:
    """Raise PlaceError, naming each place where a run could not write: its store, and `out` or its own directory."""
    places = [(config.runtime.store or default_store(), out or config.runtime.out or RUNS) for config in configs]
    for store, directory in dict.fromkeys(places):
        writable.refuse_unwritable({"runtime.store (FEDPATCH_STORE)": store, "runtime.out (--out)": directory})
