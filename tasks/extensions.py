"""The task that tries a user's own functions, on the machine that will call them."""

from __future__ import annotations

from data_contracts.config import ExperimentConfig
from data_contracts.settings import Place
from pipeline_lib.planning import experiment, extension_trial
from tasks.stage import step


@step("try-extensions")
def try_extensions(config: ExperimentConfig, place: Place, keys: tuple[str, ...] | None = None) -> None:
    """Call each `module:function` of the configuration once; a partitioner on the images at `place.data_root`.

    keys: only these, where a machine needs no other; then there is no partition.
    """
    index = experiment.list_images(config, place.data_root) if keys is None else None
    extension_trial.try_extensions(config, keys=keys, index=index)
