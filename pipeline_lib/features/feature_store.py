"""An artifact store that makes image features again where it does not keep them."""

from __future__ import annotations

import numpy as np

from data_contracts.errors import ArtifactError, FedpatchError
from data_contracts.manifests import Manifest
from data_contracts.settings import Place
from pipeline_lib.features.extraction import make_again
from pipeline_lib.features.recipes import read_recipe, recipe_path
from pipeline_lib.storage.artifact_store import ArtifactStore


class FeatureStore(ArtifactStore):
    """The store of a place, whose data set lies there."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.store)
        self.data_root = place.data_root

    def read_array(self, manifest: Manifest) -> np.ndarray:
        """As the artifact store's; features that are not kept are computed, one image at a time.

        A recipe that does not lead to them goes, so that the next run extracts them anew.
        """
        try:
            return super().read_array(manifest)
        except ArtifactError:
            try:
                recipe = read_recipe(self, manifest)
                if recipe is not None:
                    return make_again(recipe, manifest, self, self.data_root)
            except (FedpatchError, FileNotFoundError):
                recipe_path(self, manifest).unlink(missing_ok=True)
                raise
            raise
