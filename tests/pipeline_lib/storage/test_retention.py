"""Retention: what recent runs refer to stays, the rest goes, nothing young is touched."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest

from data_contracts.tables import PATCH_FEATURES
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.file_lock import remove_if_unlocked, try_lock_file
from pipeline_lib.storage.references import RECIPE_SUFFIX
from pipeline_lib.storage.retention import DAY_SECONDS, prune_store, register_run, store_status


def age(root: Path, days: float) -> None:
    """Make every file below root that old."""
    then = time.time() - days * DAY_SECONDS
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_only_what_recent_runs_refer_to_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    used, unused = (store.write_json("partition_stats", {"n": n}) for n in (1, 2))
    register_run(store, "recent", [used], run_directory="somewhere")
    age(tmp_path, 8)
    would = prune_store(store, keep_days=30, dry_run=True)
    assert would.removed_files == 1
    assert store.path(unused).exists()
    report = prune_store(store, keep_days=30)
    assert (report.removed_files, report.removed_bytes) == (1, unused.size_bytes)
    assert store.is_intact(used)
    assert not store.is_intact(unused)


def test_a_run_in_progress_loses_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    fresh = store.write_json("partition_stats", {"n": 1})
    assert prune_store(store, keep_days=0).removed_files == 0
    assert store.is_intact(fresh)


def test_old_runs_go_with_their_artifacts_and_stale_temporary_files_too(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifest = store.write_json("partition_stats", {"n": 1})
    register_run(store, "old", [manifest], run_directory="somewhere")
    (tmp_path / "objects" / ".half.json.abc.tmp").write_text("{")
    age(tmp_path, 0.5)
    report = prune_store(store, keep_days=30, now=time.time() + 31 * DAY_SECONDS)
    assert report.removed_files == 3
    assert report.removed_runs == 1
    assert store_status(store).size_bytes == 0


@pytest.mark.parametrize("keep", [True, False])
def test_image_features_behind_a_table_count_as_referred(tmp_path: Path, keep: bool) -> None:
    """Also where a recipe lies in their place: an index entry that names them stays with it."""
    import numpy as np

    store = ArtifactStore(tmp_path)
    image = store.write_array("image_features", np.zeros((4, 3), np.float16), keep=keep)
    file = store.path(image)
    if not keep:
        file = file.with_name(file.name + RECIPE_SUFFIX)
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    size = file.stat().st_size
    store.remember("image_features", "key", {"manifest": image.model_dump()})
    row = {
        "image_id": "a", "category": "c", "image_sha256": "0", "image_bytes": 1, "grid_height": 2, "grid_width": 2,
        "cells": [0.5, 0.5, 2.0, 2.0],
        "dim": 3, "path": image.path, "sha256": image.sha256, "size_bytes": image.size_bytes,
    }  # fmt: skip
    table = store.write_table("patch_features", pd.DataFrame([row]), PATCH_FEATURES)
    register_run(store, "run", [table], run_directory="somewhere")
    age(tmp_path, 3)
    assert prune_store(store, keep_days=30).removed_files == 0
    status = store_status(store)
    assert status.files_by_kind == {"image_features": 1, "patch_features": 1}
    assert status.referred_bytes == size + table.size_bytes
    assert prune_store(store, keep_days=30, now=time.time() + 31 * DAY_SECONDS).removed_files == 4  # the run's, too
    assert not file.exists()
    assert store.recall("image_features", "key") is None


def test_the_oldest_runs_go_until_the_size_is_met(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifests = [store.write_json("partition_stats", {"n": n}) for n in range(3)]
    for number, manifest in enumerate(manifests):
        register_run(store, f"run{number}", [manifest], run_directory="somewhere")
        time.sleep(0.01)
    age(tmp_path, 1)
    prune_store(store, keep_days=30, max_bytes=2 * manifests[0].size_bytes)
    assert [store.is_intact(m) for m in manifests] == [False, True, True]


def test_what_an_unfinished_run_made_stays_for_a_week_and_a_use_counts_anew(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    reused, unused = (store.write_json("partition_stats", {"n": n}) for n in (1, 2))
    age(tmp_path, 6)
    assert prune_store(store, keep_days=1).removed_files == 0
    age(tmp_path, 8)
    assert store.is_intact(reused)  # a cache hit checks the artifact, and that is a use
    assert prune_store(store, keep_days=1).removed_files == 1
    assert (store.path(reused).exists(), store.path(unused).exists()) == (True, False)


@pytest.mark.parametrize("use", ["write", "read"])
def test_reading_and_writing_again_are_uses(tmp_path: Path, use: str) -> None:
    store = ArtifactStore(tmp_path)
    manifest = store.write_json("partition_stats", {"n": 1})
    age(tmp_path, 8)
    if use == "write":
        store.write_json("partition_stats", {"n": 1})
    else:
        store.read_json(manifest)
    assert prune_store(store, keep_days=1).removed_files == 0


def test_records_and_index_entries_go_with_their_artifacts(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    gone, kept = (store.write_json("partition_stats", {"n": n}) for n in (1, 2))
    register_run(store, "run", [kept], run_directory="somewhere")
    for name, manifest in (("gone", gone), ("kept", kept)):
        store.remember("image_features", name, {"manifest": manifest.model_dump()})
        record = tmp_path / "records" / name
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps({"result": json.dumps({"table": manifest.model_dump()})}))
    (tmp_path / "records" / "unreadable").write_text("{")
    age(tmp_path, 8)
    assert prune_store(store, keep_days=30, dry_run=True).removed_files == 4
    assert prune_store(store, keep_days=30).removed_files == 4
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == ["kept"]
    assert store.recall("image_features", "gone") is None
    assert store.recall("image_features", "kept") is not None


def test_within_a_size_what_no_run_refers_to_goes_first_and_the_longest_unused_before_the_rest(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    in_run, older, newer = (store.write_json("partition_stats", {"n": n}) for n in range(3))
    register_run(store, "run", [in_run], run_directory="somewhere")
    age(tmp_path, 2)
    then = time.time() - 1 * DAY_SECONDS
    os.utime(store.path(newer), (then, then))
    prune_store(store, keep_days=30, max_bytes=2 * in_run.size_bytes)
    assert [store.path(m).exists() for m in (in_run, older, newer)] == [True, False, True]


def test_a_lock_that_is_held_stays_and_a_removed_one_does_not_count(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    held, free = tmp_path / "locks" / "held.lock", tmp_path / "locks" / "free.lock"
    descriptor = try_lock_file(held)
    other = try_lock_file(free)
    assert descriptor is not None
    assert other is not None
    os.close(other)
    age(tmp_path, 8)
    prune_store(store, keep_days=30)
    assert (held.exists(), free.exists()) == (True, False)
    assert not remove_if_unlocked(held)
    assert try_lock_file(held) is None
    os.close(descriptor)
    assert remove_if_unlocked(held)
    assert not remove_if_unlocked(held)
