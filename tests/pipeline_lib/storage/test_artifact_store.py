"""The artifact store: exact round trips, damage is found, nothing half-written is left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_contracts.errors import ArtifactError
from data_contracts.tables import PARTITION
from pipeline_lib.storage.artifact_store import ArtifactStore, write_file


def test_arrays_tables_and_json_come_back_exactly(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    arrays = {"rows": np.arange(6, dtype=np.float32).reshape(2, 3), "names": np.array(["a", "bc"])}
    manifest = store.write_arrays("memory_bank", arrays, rows=2)
    back = store.read_arrays(manifest)
    assert set(back) == {"rows", "names"}
    assert all(np.array_equal(back[name], arrays[name]) and back[name].dtype == arrays[name].dtype for name in arrays)
    frame = pd.DataFrame({"image_id": ["b", "a"], "client_id": ["1", "0"]})
    table = store.write_table("partition", frame, PARTITION)
    pd.testing.assert_frame_equal(store.read_table(table), frame, check_dtype=False)
    assert table.rows == 2
    assert store.read_json(store.write_json("partition_stats", {"ü": [1, None]})) == {"ü": [1, None]}


def test_same_content_is_the_same_artifact_and_is_written_once(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    rows = np.ones((3, 2))
    first = store.write_arrays("memory_bank", {"rows": rows}, rows=3)
    inode = store.path(first).stat().st_ino
    assert store.write_arrays("memory_bank", {"rows": rows.copy()}, rows=3) == first
    assert store.path(first).stat().st_ino == inode


def test_a_damaged_or_missing_artifact_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifest = store.write_json("partition_stats", {"a": 1})
    path = store.path(manifest)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    assert not store.is_intact(manifest)
    with pytest.raises(ArtifactError, match=r"damaged.*partition_stats"):
        store.read_json(manifest)
    path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        store.read_json(manifest)
    with pytest.raises(ArtifactError, match="missing"):
        store.verify(manifest)
    assert store.write_json("partition_stats", {"a": 1}) == manifest
    assert store.is_intact(manifest)


def test_writing_again_mends_a_damaged_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifest = store.write_json("partition_stats", {"a": 1})
    store.path(manifest).write_bytes(b"x" * manifest.size_bytes)
    store.write_json("partition_stats", {"a": 1})
    assert store.read_json(manifest) == {"a": 1}


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(ValueError, match="allow_pickle"):
        store.write_array("image_features", np.array([{"a": 1}], dtype=object))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        write_file(tmp_path / "a" / "b.json", b"{}")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_records_are_kept_and_unreadable_ones_do_not_count(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.recall("image_features", "abcd") is None
    store.remember("image_features", "abcd", {"x": 1})
    assert store.recall("image_features", "abcd") == {"x": 1}
    next(tmp_path.rglob("abcd.json")).write_text("{")
    assert store.recall("image_features", "abcd") is None
