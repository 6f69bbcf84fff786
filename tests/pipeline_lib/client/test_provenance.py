"""Where a coreset's rows came from, and the patches that they are again."""

from __future__ import annotations

import io

import numpy as np

from pipeline_lib.client.provenance import Provenance
from pipeline_lib.client.selection import ClientCoreset

SENT = Provenance(["a", "b"], np.array([1, 0, 1], np.int32), np.array([2, 1, 0], np.int32))


def patches_of(*counts: int) -> np.ndarray:
    """Patches that say which image and which of its patches they are: float16 (patch, 2)."""
    return np.array([(image, patch) for image, n in enumerate(counts) for patch in range(n)], np.float16)


def test_rows_are_found_again_by_image_and_patch() -> None:
    rows = SENT.rows(patches_of(2, 3), ["a", "b"], [2, 3])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [(1, 2), (0, 1), (1, 0)])


def test_another_order_and_images_that_came_do_not_matter_and_one_that_is_gone_is_left_out() -> None:
    moved = SENT.rows(patches_of(3, 4, 2), ["b", "new", "a"], np.array([3, 4, 2]))
    np.testing.assert_array_equal(moved, [(0, 2), (2, 1), (0, 0)])
    np.testing.assert_array_equal(SENT.rows(patches_of(2, 4), ["a", "new"], [2, 4]), [(0, 1)])
    assert SENT.rows(patches_of(4), ["new"], [4]).shape == (0, 2)


def test_it_comes_back_from_its_file() -> None:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **SENT.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = Provenance.from_arrays(arrays)
    assert again.image_ids == SENT.image_ids
    np.testing.assert_array_equal(again.patch_image, SENT.patch_image)
    np.testing.assert_array_equal(again.patch_index, SENT.patch_index)


def test_that_of_a_coreset_are_its_own_places() -> None:
    coreset = ClientCoreset(
        bank="clip", arrays={}, dim=2, n_rows=3, n_images=2, n_patches=5, raw_image_bytes=0, covering_radius=0.0,
        reconstruction_error=0.0, image_ids=SENT.image_ids, patch_image=SENT.patch_image, patch_index=SENT.patch_index,
    )  # fmt: skip
    made = Provenance.of(coreset)
    assert (made.image_ids, made.patch_image, made.patch_index) == (SENT.image_ids, SENT.patch_image, SENT.patch_index)
