"""Counts of an upload: beside every codec's arrays, checked, and refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_contracts.config import Codec
from data_contracts.errors import UploadError
from data_contracts.manifests import UploadManifest
from pipeline_lib.upload.acceptance import Upload, accept_uploads, check_upload, join_rounds
from pipeline_lib.upload.codec import decode_rows, encode_rows
from pipeline_lib.upload.counts import rows_of, with_counts

ROWS = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
COUNTS = np.arange(600) % 7


def manifest(rows: int = 600, **values: Any) -> UploadManifest:
    given: dict[str, Any] = {
        "kind": "client_upload", "path": "a.npz", "sha256": "0" * 64, "size_bytes": 1, "rows": rows, "client_id": "a",
        "category": "clip", "round": 1, "config_hash": "h", "dim": 8, "n_images": 5, "n_patches": 2000,
        "raw_image_bytes": 1, "covering_radius": 1.0, **values,
    }  # fmt: skip
    return UploadManifest(**given)


def check(arrays: dict[str, np.ndarray], **values: Any) -> Upload:
    return check_upload(manifest(), arrays, dim=8, config_hash="h", round_number=1, **values)


@pytest.mark.parametrize("codec", ["float32", "float16", "pca_float16", "pq"])
def test_counts_travel_beside_every_codec(codec: Codec) -> None:
    encoded = encode_rows(ROWS, codec)
    upload = check(with_counts(encoded, COUNTS), with_counts=True)
    assert upload.counts is not None
    assert (upload.counts.dtype, upload.counts.tolist()) == (np.int64, COUNTS.tolist())
    np.testing.assert_array_equal(upload.rows, decode_rows(encoded))
    np.testing.assert_array_equal(rows_of(with_counts(encoded, COUNTS)), decode_rows(encoded))
    assert check(encoded).counts is None


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (COUNTS[:-1], r"its array counts is int64 of shape \(599,\); it takes an integer a row, \(600,\)"),
        (COUNTS[:, None], r"of shape \(600, 1\)"),
        (COUNTS.astype(np.float32), "its array counts is float32"),
        (COUNTS - 1, "its counts are from -1 to 5, of 2000 patches"),
        (COUNTS + 1, "its counts add up to 2395, but the client names only 2000 patches"),
        (np.full(600, 2**64 - 1, np.uint64), "its counts are from 18446744073709551615 to 18446744073709551615"),
        (np.full(600, 2**62, np.int64), "its counts are from 4611686018427387904"),
    ],
)
def test_what_cannot_be_counts_is_refused(counts: np.ndarray, reason: str) -> None:
    with pytest.raises(UploadError, match=rf"upload of client a for clip refused: .*{reason}"):
        check({"rows": ROWS, "counts": counts})


def test_counts_that_others_have_or_lack_are_refused_and_the_others_go_on() -> None:
    plain, counted = {"rows": ROWS}, with_counts({"rows": ROWS}, COUNTS)
    for wanted, wrong, what in ((True, plain, "has no counts"), (False, counted, "has counts")):
        right = counted if wanted else plain
        received = [(manifest(), right), (manifest(client_id="b"), wrong)]
        accepted, refused = accept_uploads(received, dim=8, config_hash="h", round_number=1, with_counts=wanted)
        assert [one.client_id for one in accepted] == ["a"]
        assert f"it {what}, which uploads have with model.rows: cell_means alone" in refused["b"]


def test_rounds_are_joined_with_their_counts() -> None:
    first = Upload("a", ROWS[:2], 5, 100, counts=np.array([3, 4]))
    second = Upload("a", ROWS[2:3], 5, 100, counts=np.array([1]))
    joined = join_rounds([first, second])
    assert joined.counts is not None
    assert joined.counts.tolist() == [3, 4, 1]
    assert join_rounds([Upload("a", ROWS[:2], 5, 100), Upload("a", ROWS[2:3], 5, 100)]).counts is None
