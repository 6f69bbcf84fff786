"""Which image and patch each row of a coreset came from (DESIGN artifact 4b). Stays with the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_lib.client.selection import ClientCoreset
from pipeline_lib.coreset.cell_means import means_of, sums_of_cells


@dataclass(frozen=True)
class Provenance:
    """The origin of each row, in the order of sending.

    Of a row that is a mean, the patch that was picked, and which patches are in it.
    """

    image_ids: list[str]
    patch_image: np.ndarray  # int32 (row,), index into image_ids
    patch_index: np.ndarray  # int32 (row,), patch of that image, row-major
    patch_counts: np.ndarray | None = None  # int64 (image,); this and the cell with means alone
    cell: np.ndarray | None = None  # int32 (patch,) of all images in order: the row that it is in the mean of, or -1

    @classmethod
    def of(cls, coreset: ClientCoreset) -> Provenance:
        """Of a coreset that was just selected."""
        return cls(coreset.image_ids, coreset.patch_image, coreset.patch_index, coreset.patch_counts, coreset.cell)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Named arrays for an npz file."""
        arrays = {
            "image_ids": np.array(self.image_ids, dtype=np.str_),
            "patch_image": self.patch_image,
            "patch_index": self.patch_index,
        }
        if self.patch_counts is not None and self.cell is not None:
            arrays |= {"patch_counts": self.patch_counts, "cell": self.cell}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Provenance:
        """The inverse of `to_arrays`."""
        return cls(
            [str(i) for i in arrays["image_ids"]],
            arrays["patch_image"],
            arrays["patch_index"],
            arrays.get("patch_counts"),
            arrays.get("cell"),
        )

    def rows(
        self, patches: np.ndarray, image_ids: Sequence[str], patch_counts: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """The rows that were sent, as they are at the client: float32 (row, dim).

        patches: (patch, dim), of all images in the order of `image_ids`, `patch_counts` of each; images are found by
        their id, so that an image that has come or gone since does not matter. Rows of which no patch is left are left
        out; means are those of the patches that are left.
        """
        starts = np.concatenate([[0], np.cumsum(patch_counts)])
        place = {image_id: int(starts[position]) for position, image_id in enumerate(image_ids)}
        if self.cell is not None:
            cell = np.full(len(patches), -1, np.int32)
            for image_id, own in self.cells().items():
                if image_id in place:
                    cell[place[image_id] : place[image_id] + len(own)] = own
            counts = np.bincount(cell[cell >= 0], minlength=len(self.patch_image))
            sums = sums_of_cells(patches, cell, len(counts))[counts > 0]
            return means_of(sums, counts[counts > 0], empty=np.empty_like(sums))
        first = np.array([place.get(image_id, -1) for image_id in self.image_ids], dtype=np.int64)[self.patch_image]
        found: np.ndarray = patches[(first + self.patch_index)[first >= 0]].astype(np.float32)
        return found

    def cells(self) -> dict[str, np.ndarray]:
        """Image id -> of each of its patches the row that it is in the mean of, or -1; nothing where rows are picks."""
        if self.cell is None or self.patch_counts is None:
            return {}
        parts = np.split(self.cell, np.cumsum(self.patch_counts)[:-1])
        return dict(zip(self.image_ids, parts, strict=True))
