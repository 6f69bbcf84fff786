"""Cache keys and records: what changes a key, what does not, and when a record no longer counts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_contracts.config import ModelConfig, PreprocessingConfig
from data_contracts.manifests import ClientImages, Manifest
from data_contracts.settings import AS_EARLIER, BackboneSettings, CoresetSettings, Place
from data_contracts.tables import CLIENT_IMAGES
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.features import backbone, extraction, extractor
from pipeline_lib.features.extraction import read_patches
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.references import manifests_in
from tasks import clients, data, evaluation, server, stations
from tasks.caching import code_version as caching_code_version
from tasks.caching import policy as caching
from tasks.caching.code_version import code_version, task_version
from tasks.caching.locking import FlockLockManager
from tasks.caching.policy import LOCKS_DIRECTORY, RECORDS_DIRECTORY, StagePolicy, canonical_value
from tests.dataset_fixtures import write_tiny_autovi

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


@pytest.fixture
def fresh_versions() -> Iterator[None]:
    """Versions are computed once a process: anew for a test that changes code or packages, and after it."""
    forget_versions()
    yield
    forget_versions()


def forget_versions() -> None:
    caching_code_version.code_version.cache_clear()
    caching_code_version._module_code.cache_clear()


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
    assert canonical_value(BACKBONE) == canonical_value(BACKBONE.model_copy(update={"seed": 1}))
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
    for name, value in {
        "seed": 2, "ratio": 0.2, "codec": "float16", "round": 2, "rows": "cell_means", "lloyd_steps": 2
    }.items():  # fmt: skip
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


@pytest.mark.usefixtures("fresh_versions")
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
    monkeypatch.setattr("tasks.caching.code_version.CODE_PACKAGES", ("pipeline_lib_probe",))

    def version() -> str:
        forget_versions()
        return code_version("pipeline_lib_probe.outer")

    first = version()
    outer.write_text('from pipeline_lib_probe.inner import A  # note\n\ndef f():\n    """Doc."""\n    return A\n')
    assert version() == first
    (package / "inner.py").write_text("A = 2\n")
    assert version() != first


@pytest.mark.usefixtures("fresh_versions")
def test_versions_of_packages_count_where_they_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {
        "extract": clients.extract_client_features,
        "merge": server.aggregate_memory_bank,
        "index": data.index_dataset,
        "own": stations.take_own_images,
    }
    installed = importlib.metadata.version
    before = {name: task_version(stage) for name, stage in stages.items()}

    def changed_by(package: str) -> set[str]:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == package else installed(name))
        forget_versions()
        return {name for name, stage in stages.items() if task_version(stage) != before[name]}

    assert changed_by("torch") == changed_by("faiss-cpu") == {"extract", "merge"}
    assert changed_by("torchvision") == changed_by("timm") == {"extract"}
    assert changed_by("pillow") == {"extract", "index"}
    assert changed_by("prefect") == set()


@pytest.mark.usefixtures("fresh_versions")
def test_features_are_computed_anew_by_another_averaging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tiny_autovi(tmp_path / "data", train=2, good=1, defective=1)
    place = Place(store=tmp_path / "store", data_root=root, device="cpu")
    store = ArtifactStore(place.store)
    index = index_dataset(root)
    rows = index.loc[index.split == "train", CLIENT_IMAGES.names].reset_index(drop=True)
    client = ClientImages(
        client_id="a", images=store.write_table("client_images", rows, CLIENT_IMAGES), categories=("pipe_clip",)
    )
    settings = backbone.resolve_backbone(ModelConfig(backbone="efficientnet_lite0"), PreprocessingConfig(), seed=0)
    monkeypatch.setattr(clients, "progress_bar", lambda *_: None)

    def extracted() -> np.ndarray:
        forget_versions()
        extraction.shared_extractor.cache_clear()
        manifest = clients.extract_client_features.fn(client, settings, {"pipe_clip": (64, 64)}, AS_EARLIER, place)
        return read_patches(store.read_table(manifest), store)

    first = extracted()
    source = Path(extractor.__file__).read_text(encoding="utf-8")
    zero_padded = "functional.avg_pool2d(features, neighborhood_size, stride=1, padding=neighborhood_size // 2)"
    assert source.count(zero_padded) == 1
    changed = tmp_path / "extractor.py"
    changed.write_text(source.replace(zero_padded, zero_padded.replace(")", ", count_include_pad=False)")))
    spec = importlib.util.spec_from_file_location(extractor.__name__, changed)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, extractor.__name__, module)
    spec.loader.exec_module(module)
    assert not np.array_equal(extracted(), first)
    monkeypatch.undo()
    monkeypatch.setattr(clients, "progress_bar", lambda *_: None)
    assert np.array_equal(extracted(), first)


def test_on_a_gpu_a_network_counts_by_how_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = StagePolicy(stage="s", version="1", store_root=str(tmp_path))
    place = Place(store=tmp_path, data_root=tmp_path)
    places = [place, *(place.model_copy(update=one) for one in ({"batch_size": 2}, {"deterministic": False}))]

    def keys(**inputs: Any) -> list[str]:
        return [key(policy, place=one, **inputs) for one in places]

    monkeypatch.setattr(caching, "is_cpu", lambda _: True)
    on_cpu = keys(settings=BACKBONE)
    assert len(set(on_cpu)) == 1
    without = keys(ratio=0.1)
    monkeypatch.setattr(caching, "is_cpu", lambda _: False)
    monkeypatch.setattr(caching, "pick_device", lambda _: torch.device("cuda"))
    assert len({*keys(settings=BACKBONE), *on_cpu}) == 4
    assert keys(ratio=0.1) == without
