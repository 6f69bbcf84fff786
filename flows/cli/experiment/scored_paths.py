"""What `score` is given, looked at before torch is imported: a model, and images that are there."""

from __future__ import annotations

from pathlib import Path

from data_contracts.errors import FedpatchError
from pipeline_lib.dataset.image_files import refuse_missing
from pipeline_lib.models.model_file import read_model_file


def model_and_images(
    model: Path | None, paths: list[Path], *, out: Path | None, explain: bool, watch: bool
) -> tuple[Path, list[Path]]:
    """The model's directory, that of --model or else the first of the paths, and the images.

    Raises FedpatchError for what is missing or does not go together.
    """
    if model is None:
        if not paths:
            raise FedpatchError("give a run directory and images: fedpatch score RUN_DIR IMAGES...")
        model, paths = paths[0], paths[1:]
    if not paths:
        raise FedpatchError(f"give images or directories to score with {model}: fedpatch score RUN_DIR IMAGES...")
    if explain and out is None:
        raise FedpatchError("--explain draws pictures: say where they go with --out")
    if watch and len(paths) != 1:
        raise FedpatchError("--watch takes one directory")
    read_model_file(model)
    for path in paths:
        refuse_missing(path)
    return model, paths
