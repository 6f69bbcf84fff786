"""Where stations and coordinator read and write: each machine's own business, never what another machine says."""

from __future__ import annotations

import os

from pydantic import TypeAdapter, ValidationError

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from data_contracts.exchange import Name
from data_contracts.settings import Place, place_of


def own_config(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration without any path: data, store and run directory are this machine's own.

    Raises ConfigError for groups that a file names.
    """
    if isinstance(config.dataset.group, dict) and "file" in config.dataset.group:
        raise ConfigError("dataset.group: a file lies on one machine; stations take {pattern: ...} or found")
    return config.as_mode("federated").model_copy(
        update={
            "dataset": config.dataset.model_copy(update={"root": None}),
            "runtime": config.runtime.model_copy(update={"store": None, "out": None}),
        }
    )


def station_name() -> str:
    """`$FEDPATCH_STATION`. Raises ConfigError where it is missing or cannot be a name."""
    try:
        return TypeAdapter(Name).validate_python(os.environ.get("FEDPATCH_STATION", ""))
    except ValidationError as error:
        raise ConfigError(
            "FEDPATCH_STATION is not set in this worker, or not letters, digits, dots and hyphens; name the station "
            "where its worker is started, and start the worker again"
        ) from error


def coordinator_place(config: ExperimentConfig) -> Place:
    """The coordinator's own store; it has no images."""
    root = config.dataset.model_copy(update={"root": os.devnull})
    return place_of(config.model_copy(update={"dataset": root}))
