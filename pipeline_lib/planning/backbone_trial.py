"""The backbone that a configuration names, tried before anything else: one forward pass at each size of the images.

A layer that gives no feature map, or a network that takes images of another size alone, would otherwise show after
images were read, at each client by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError, DatasetError, FedpatchError
from data_contracts.settings import BackboneSettings
from pipeline_lib.configuration.hardware import pick_device
from pipeline_lib.dataset.layout import resolved_layout, select_categories
from pipeline_lib.extensions import is_extension
from pipeline_lib.features.backbone import build_network, resolve_backbone
from pipeline_lib.when_needed import torch

GridOf = Callable[[BackboneSettings, int, int], tuple[int, int, int]]
"""`patch_grid`, or what remembers its answers."""


@lru_cache(maxsize=256)
def patch_grid(settings: BackboneSettings, width: int, height: int) -> tuple[int, int, int]:
    """(grid height, grid width, dim) of an image of this size in pixels, from a backbone without data.

    The runs of a benchmark ask for the same few again and again, at a quarter of a second each. Raises ConfigError
    when the network or one of the layers cannot be used.
    """
    from pipeline_lib.features.extractor import FeatureExtractor  # a class of torch's: imported where it computes

    settings = settings.model_copy(update={"alignment": "corners_as_patchcore"})  # which leaves the shape as it is
    try:
        with torch.device("meta"):
            shape = FeatureExtractor(settings=settings, device="meta")(torch.zeros(1, 3, height, width)).shape
    except FedpatchError:
        raise
    except Exception as error:  # a network raises nearly anything at a size that it was not made for
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(
            f"model.backbone: {settings.backbone} failed when it was tried on an image of {width}x{height} pixels "
            f"({reason}); give the size that it takes in preprocessing, or another backbone"
        ) from error
    return shape[2], shape[3], shape[1]


def try_backbone(config: ExperimentConfig, root: Path, *, grid_of: GridOf = patch_grid) -> None:
    """Try the backbone at the sizes that the categories at `root` are resized to; a function of the user's is left out.

    Weights are loaded where the configuration names their file. Raises ConfigError or WeightsError naming what does
    not fit. Without a data set there nothing is tried: the run says what is wrong with it.
    """
    if is_extension(config.model.backbone):
        return  # pipeline_lib.planning.extension_trial
    dataset = config.dataset
    try:
        layout = resolved_layout(dataset.layout, root)
        categories = select_categories(root, layout=layout, categories=dataset.categories)
    except DatasetError:
        return
    if config.model.extraction == "bfloat16":
        from pipeline_lib.features.extractor import refuse_extraction  # as in patch_grid

        refuse_extraction(config.model.extraction, pick_device(config.runtime.device))
    settings = unweighted(config)
    for width, height in sorted({config.preprocessing.size(category) for category in categories}):
        grid_of(settings, width, height)
    if config.model.weights_path is not None:
        _load(resolve_backbone(config.model, config.preprocessing, seed=config.seed))


def unweighted(config: ExperimentConfig) -> BackboneSettings:
    """The backbone with random weights: its layers and grids are those of any weights."""
    model = config.model.model_copy(update={"weights": "random", "weights_path": None})
    return resolve_backbone(model, config.preprocessing, seed=config.seed)


@lru_cache(maxsize=16)
def _load(settings: BackboneSettings) -> None:
    build_network(settings)
