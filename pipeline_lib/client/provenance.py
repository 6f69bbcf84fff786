"""Which image and patch each row of a coreset came from (DESIGN artifact 4b). Stays with the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_lib.client.selection import ClientCoreset


@dataclass(frozen=True)
class Provenance:
    """The origin of each row, in the order of sending."""

    image_ids: list[str]
    patch_image: np.ndarray  # int32 (row,), index into image_ids
    patch_index: np.ndarray  # int32 (row,), patch of that image, row-major

    @classmethod
    def of(cls, coreset: ClientCoreset) -> Provenance:
        """Of a coreset that was just selected."""
        return cls(coreset.image_ids, coreset.patch_image, coreset.patch_index)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Named arrays for an npz file."""
        return {
            "image_ids": np.array(self.image_ids, dtype=np.str_),
            "patch_image": self.patch_image,
            "patch_index": self.patch_index,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Provenance:
        """The inverse of `to_arrays`."""
        return cls([str(i) for i in arrays["image_ids"]], arrays["patch_image"], arrays["patch_index"])

    def rows(
        self, patches: np.ndarray, image_ids: Sequence[str], patch_counts: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """The patches that were sent, as they are at the client: float32 (row, dim).

        patches: (patch, dim), of all images in the order of `image_ids`, `patch_counts` of each; images are found by
        their id, so that an image that has come or gone since does not matter. Rows whose image is gone are left out.
        """
        starts = np.concatenate([[0], np.cumsum(patch_counts)])
        place = {image_id: starts[position] for position, image_id in enumerate(image_ids)}
        first = np.array([place.get(image_id, -1) for image_id in self.image_ids], dtype=np.int64)[self.patch_image]
        found: np.ndarray = patches[(first + self.patch_index)[first >= 0]].astype(np.float32)
        return found
