"""Cache keys and records: what changes a key, what does not, and when a record no longer counts."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_contracts.manifests import Manifest
from data_contracts.stages import BackboneSettings, CoresetSettings, Place
from pipeline_lib.artifact_store import ArtifactStore
from tasks import clients, data, evaluation, server
from tasks.caching import (
    LOCKS_DIRECTORY,
    RECORDS_DIRECTORY,
    StagePolicy,
    canonical_value,
    code_version,
    manifests_in,
    parse_source,
    task_version,
)
from tasks.locking import FlockLockManager

BACKBONE = BackboneSettings(
    backbone="resnet18",
    layers=("layer2",),
    weights_source="random",
    weights_sha256="0" * 64,
    weights_path=None,
    seed=0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    neighborhood_size=3,
)


def key(policy: StagePolicy, **inputs: Any) -> str:
    return policy.compute_key(SimpleNamespace(), inputs, {})  # type: ignore[arg-type]


def test_manifests_count_by_content_and_places_not_at_all(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    one, two = (store.write_json("partition_stats", {"v": v}) for v in (1, 2))
    policy = StagePolicy(stage="s", version="1", store_root=str(tmp_path))
    place = Place(store=tmp_path, data_root=tmp_path)
    base = key(policy, manifest=one, place=place)
    assert base == key(policy, manifest=one.model_copy(update={"path": "elsewhere"}), place=None)
    assert base != key(policy, manifest=two, place=place)
    assert base != key(StagePolicy(stage="s", version="2", store_root=str(tmp_path)), manifest=one, place=place)
    assert base != key(StagePolicy(stage="t", version="1", store_root=str(tmp_path)), manifest=one, place=place)


def test_a_backbone_counts_by_its_weights_not_by_where_they_lie() -> None:
    moved = BACKBONE.model_copy(update={"weights_path": Path("/elsewhere/w.pth"), "weights_source": "moved"})
    assert canonical_value(BACKBONE) == canonical_value(moved)
    assert canonical_value(BACKBONE) != canonical_value(BACKBONE.model_copy(update={"weights_sha256": "1" * 64}))


@pytest.mark.parametrize("value", [np.zeros(2), object(), {1, 2}, b"x"])
def test_anything_without_a_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cache key"):
        canonical_value({"a": [value]})


def test_order_of_keys_does_not_matter_and_every_value_does() -> None:
    settings = CoresetSettings(
        seed=1, subsampling="kcenter", ratio=0.1, bank_scope="per_category", codec="float32", clip_norm=None,
        noise_sigma=0.0,
    )  # fmt: skip
    for name, value in {"seed": 2, "ratio": 0.2, "codec": "float16", "round": 2}.items():
        assert canonical_value(settings) != canonical_value(settings.model_copy(update={name: value}))


def write_record(store: ArtifactStore, name: str, manifest: Manifest) -> Path:
    record = store.root / RECORDS_DIRECTORY / name
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"metadata": {}, "result": json.dumps([manifest.model_dump()])}))
    return record


def test_a_record_counts_only_while_its_artifacts_are_intact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifest = store.write_json("partition_stats", {"v": 1})
    policy = StagePolicy(stage="s", version="1", store_root=str(tmp_path))
    record = write_record(store, key(policy, x=1), manifest)
    key(policy, x=1)
    assert record.exists()
    store.path(manifest).write_text("damaged")
    key(policy, x=1)
    assert not record.exists()


def test_a_half_written_record_is_dropped_unless_its_key_is_being_computed(tmp_path: Path) -> None:
    policy = StagePolicy(stage="s", version="1", store_root=str(tmp_path))
    name = key(policy, x=1)
    record = tmp_path / RECORDS_DIRECTORY / name
    record.parent.mkdir()
    record.write_text('{"metadata": ')
    locks = FlockLockManager(tmp_path / LOCKS_DIRECTORY)
    locks.acquire_lock(name, "worker")
    key(policy, x=1)
    assert record.exists()
    locks.release_lock(name, "worker")
    key(policy, x=1)
    assert not record.exists()


def test_manifests_are_found_in_prefects_records() -> None:
    manifest = Manifest(kind="curves", path="p", sha256="a" * 64, size_bytes=1, rows=1)
    inner = json.dumps({"__class__": "x", "data": {"uploads": [manifest.model_dump()], "n": 1}})
    assert list(manifests_in({"result": inner, "other": None})) == [manifest]


def test_every_stages_version_covers_its_library_code() -> None:
    versions = {
        task.name: task_version(task)
        for task in (
            data.index_dataset,
            data.partition_dataset,
            clients.extract_client_features,
            clients.select_client_coreset,
            server.aggregate_memory_bank,
            evaluation.score_category,
            evaluation.measure_category,
        )
    }
    assert len(set(versions.values())) == len(versions)


def test_code_version_ignores_comments_and_sees_changes_in_imported_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pipeline_lib_probe"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("A = 1\n")
    outer = package / "outer.py"
    outer.write_text("from pipeline_lib_probe.inner import A\n\ndef f():\n    return A\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("tasks.caching.CODE_PACKAGES", ("pipeline_lib_probe",))

    def version() -> str:
        return code_version.__wrapped__("pipeline_lib_probe.outer")

    first = version()
    outer.write_text('from pipeline_lib_probe.inner import A  # note\n\ndef f():\n    """Doc."""\n    return A\n')
    assert version() == first
    (package / "inner.py").write_text("A = 2\n")
    assert version() != first


def test_source_is_parsed_again_where_the_interpreter_stumbles(monkeypatch: pytest.MonkeyPatch) -> None:
    original, tried = ast.parse, []

    def stumbling(text: str) -> ast.Module:
        tried.append(text)
        if len(tried) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=153, after=53)")
        return original(text)

    monkeypatch.setattr(ast, "parse", stumbling)
    assert ast.dump(parse_source("x = 1")) == ast.dump(original("x = 1"))
    assert len(tried) == 3
    with pytest.raises(SyntaxError):
        parse_source("x =")
