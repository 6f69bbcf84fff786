"""The server's tasks on a store: uploads are checked one at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.logging import disable_run_logger

from data_contracts.manifests import UploadManifest
from data_contracts.settings import Place
from pipeline_lib.storage.artifact_store import ArtifactStore
from tasks.server import check_uploads

HASH = "0" * 16


def upload(store: ArtifactStore, client: str, rows: np.ndarray) -> UploadManifest:
    written = store.write_arrays("client_upload", {"rows": rows.astype(np.float32)}, rows=len(rows))
    return UploadManifest(
        **written.model_dump(), client_id=client, category="clip", round=1, config_hash=HASH, dim=rows.shape[1],
        n_images=1, n_patches=100, raw_image_bytes=1, covering_radius=1.0,
    )  # fmt: skip


def test_uploads_are_checked_one_at_a_time_and_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tmp_path)
    rng = np.random.default_rng(0)
    uploads = [upload(store, client, rng.normal(size=(4, 3))) for client in "abcd"]
    uploads += [upload(store, "e", rng.normal(size=(4, 2))), upload(store, "f", np.full((4, 3), np.nan))]
    store.path(uploads[1]).write_bytes(b"damaged")
    alive: list[weakref.ref[np.ndarray]] = []
    read_arrays = ArtifactStore.read_arrays

    def counted(self: ArtifactStore, manifest: Any) -> dict[str, np.ndarray]:
        assert not [one for one in alive if one() is not None], "the upload before is still in memory"
        arrays = read_arrays(self, manifest)
        alive.append(weakref.ref(arrays["rows"]))
        return arrays

    monkeypatch.setattr(ArtifactStore, "read_arrays", counted)
    with disable_run_logger():
        refused = check_uploads.fn(
            uploads=uploads, bank="clip", config_hash=HASH, round_number=1,
            place=Place(store=tmp_path, data_root=tmp_path),
        )  # fmt: skip
    assert sorted(refused) == ["b", "e", "f"]
    assert "upload of client b for clip refused: artifact client_upload is damaged" in refused["b"]
    assert "2 dimensions, expected 3" in refused["e"]
    assert "not finite" in refused["f"]


def test_with_means_an_upload_without_counts_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    written = store.write_arrays("client_upload", {"rows": rows, "counts": np.ones(4, np.int32)}, rows=4)
    counted = upload(store, "b", rows).model_copy(update=written.model_dump())
    with disable_run_logger():
        refused = check_uploads.fn(
            uploads=[upload(store, "a", rows), counted], bank="clip", config_hash=HASH, round_number=1,
            place=Place(store=tmp_path, data_root=tmp_path), with_counts=True,
        )  # fmt: skip
    assert list(refused) == ["a"]
    assert "it has no counts" in refused["a"]
