"""Image features that are not kept: a small file in their place says how to make them again.

Features take patches x dimensions x 2 bytes, 87 GB for AutoVI with WideResNet-50-2, and are a function of the image.
Their manifests, which later steps go by, are the same whether they are kept or not.
"""

from __future__ import annotations

from pathlib import Path

from data_contracts.errors import ArtifactError
from data_contracts.manifests import Manifest
from data_contracts.settings import BackboneSettings, ImageReading, Settings
from pipeline_lib.storage.artifact_store import ArtifactStore, note_use, write_file
from pipeline_lib.storage.references import RECIPE_SUFFIX


class Recipe(Settings):
    """How one image's features are made."""

    image: str  # its path below the data set's root
    image_sha256: str
    size: tuple[int, int]  # width, height that it is resized to
    reading: ImageReading
    backbone: BackboneSettings


def recipe_path(store: ArtifactStore, features: Manifest) -> Path:
    """Where the recipe of these features lies, if there is one."""
    path = store.path(features)
    return path.with_name(path.name + RECIPE_SUFFIX)


def write_recipe(store: ArtifactStore, features: Manifest, recipe: Recipe) -> None:
    """Put a recipe in the features' place."""
    write_file(recipe_path(store, features), recipe.model_dump_json().encode(), durable=False)


def read_recipe(store: ArtifactStore, features: Manifest) -> Recipe | None:
    """None where there is none. Raises ArtifactError for one that cannot be read."""
    path = recipe_path(store, features)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    note_use(path)
    try:
        return Recipe.model_validate_json(content)
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: run again, which extracts the image anew") from error


def can_be_had(store: ArtifactStore, features: Manifest, *, kept: bool) -> bool:
    """Whether features are in the store, or, unless they are to be kept, how to make them."""
    return (not kept and recipe_path(store, features).is_file()) or store.is_intact(features)
