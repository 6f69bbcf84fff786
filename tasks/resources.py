"""Whether what is about to run fits this machine, has its weights, and may write where it has to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_contracts.config import ExperimentConfig, ModelConfig, canonical_hash
from data_contracts.errors import DownloadError, FedpatchError, ResourceError, WeightsError
from data_contracts.settings import BackboneSettings, Place
from pipeline_lib.features.backbone import find_weights
from pipeline_lib.planning import backbone_trial, first_checks
from pipeline_lib.planning.experiment import plan_experiment
from pipeline_lib.planning.resources import shortages
from pipeline_lib.storage.artifact_store import ArtifactStore
from tasks.caching.code_version import code_version
from tasks.stage import RETRY_DELAYS_SECONDS

GRIDS = "patch_grids"


def refuse_what_does_not_fit(runs: Mapping[str, tuple[ExperimentConfig, Place]]) -> None:
    """Raise ResourceError, saying what is short, before anything runs; each run is looked at by itself.

    runs: name -> its configuration and place; a name that is not empty is in the message. What cannot be planned,
    such as a data set that is not there, is left to the run, which says what is wrong.
    """
    problems = []
    for name, (config, place) in runs.items():
        try:
            found = shortages(plan_experiment(config, place.data_root, grid_of=_remembered_grids(place)), [place.store])
        except FedpatchError:
            continue
        problems += [f"{name}: {problem}" if name else problem for problem in found]
    if problems:
        raise ResourceError(
            f"the run would not fit: {'; '.join(problems)}; --force runs it all the same (by name: the parameter force)"
        )


def refuse_unwritable(configs: Iterable[ExperimentConfig], *, out: Path | None = None) -> None:
    """Raise PlaceError, naming each place where a run could not write: its store, and `out` or its own directory."""
    first_checks.refuse_unwritable(configs, out=out)


def refuse_backbones(runs: Iterable[tuple[ExperimentConfig, Place]]) -> None:
    """Raise ConfigError or WeightsError where a backbone cannot be used on the images of its run."""
    for config, place in runs:
        backbone_trial.try_backbone(config, place.data_root, grid_of=_remembered_grids(place))


def remember_grids(config: ExperimentConfig, place: Place) -> None:
    """Keep the run's patch grids in the store that it has by now, so that a cached run need not build a network."""
    backbone_trial.try_backbone(config, place.data_root, grid_of=_remembered_grids(place))


def _remembered_grids(place: Place) -> backbone_trial.GridOf:
    """`patch_grid` with its answers remembered in the store, where there is one."""
    if not place.store.is_dir():  # what is refused leaves nothing behind
        return backbone_trial.patch_grid
    store = ArtifactStore(place.store)

    def grid_of(settings: BackboneSettings, width: int, height: int) -> tuple[int, int, int]:
        version = code_version("pipeline_lib.planning.backbone_trial")
        key = canonical_hash([version, settings.identity(), width, height])
        if (found := store.recall(GRIDS, key)) is None:
            found = backbone_trial.patch_grid(settings, width, height)
            store.remember(GRIDS, key, found)
        grid_height, grid_width, dim = found
        return grid_height, grid_width, dim

    return grid_of


def refuse_without_weights(configs: Iterable[ExperimentConfig]) -> None:
    """Fetch the weights that are not on disk yet. Raises WeightsError, naming all backbones that have none."""
    models = [config.model for config in configs]
    problems = []
    for model in {(model.backbone, model.weights, model.weights_path): model for model in models}.values():
        try:
            _fetch(model)
        except WeightsError as error:
            problems.append(str(error))
    if problems:
        raise WeightsError("; ".join(problems))


def _fetch(model: ModelConfig) -> None:
    """A download that breaks off is tried again as a task would be."""
    for pause_s in RETRY_DELAYS_SECONDS:
        try:
            find_weights(model)
        except DownloadError:
            time.sleep(pause_s)
        else:
            return
    find_weights(model)
