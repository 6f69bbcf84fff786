"""The task that tries a user's own functions, on the machine that will call them."""

from __future__ import annotations

from prefect import task

from data_contracts.config import ExperimentConfig
from data_contracts.stages import Place
from pipeline_lib import extension_trial, plan


@task(name="try-extensions")
def try_extensions(config: ExperimentConfig, place: Place, keys: tuple[str, ...] | None = None) -> None:
    """Call each `module:function` of the configuration once; a partitioner on the images at `place.data_root`.

    keys: only these, where a machine needs no other; then there is no partition.
    """
    index = plan.list_images(config, place.data_root) if keys is None else None
    extension_trial.try_extensions(config, keys=keys, index=index)
