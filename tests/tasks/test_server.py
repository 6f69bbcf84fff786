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
