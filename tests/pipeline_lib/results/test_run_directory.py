"""The run directory: every file, whole, and the sums over clients and banks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ArtifactError
from data_contracts.federation import Federation, FederationRound
from data_contracts.manifests import (
    BankManifest,
    ClientUploads,
    ExperimentResult,
    IndexedDataset,
    Manifest,
    MeasuredBanks,
    MeasuredCategory,
    Partition,
    PreparedDataset,
    ScoredCategory,
    UploadManifest,
)
from data_contracts.results import MetricsDocument
from data_contracts.settings import BackboneSettings, EvaluationSettings
from data_contracts.tables import CURVES, DATASET_INDEX, IMAGE_SCORES, METRICS_TABLE, PARTITION
from data_contracts.validation import ValidationReport
from pipeline_lib.configuration.files import load_config
from pipeline_lib.dataset.index import category_test_table, index_dataset
from pipeline_lib.metrics.evaluation import evaluate_category, stored_maps
from pipeline_lib.report.finished_run import FinishedRun, finish_run
from pipeline_lib.results import run_directory
from pipeline_lib.results.documents import federation_summary, read_categories
from pipeline_lib.results.experiment import experiment_figures, write_experiment_files
from pipeline_lib.results.run_directory import RunFigures, default_run_directory
from pipeline_lib.storage import files
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.files import copy_artifact, safe_name, write_json_file, write_table_file

CATEGORIES = ("pipe_clip", "tank_screw")


def test_the_default_directory_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_directory, "datetime", Clock)
    names = []
    for _ in range(3):
        path = default_run_directory("lab")
        path.mkdir(parents=True)
        names.append(path.as_posix())
    assert names == ["runs/lab-20260301-123005", "runs/lab-20260301-123005-2", "runs/lab-20260301-123005-3"]


# --- what the clients sent -------------------------------------------------------------------------------------------


def upload(client_id: str, category: str, rows: int, radius: float) -> UploadManifest:
    return UploadManifest(
        kind="client_upload", path="x", sha256="0" * 64, size_bytes=100 * rows, rows=rows, client_id=client_id,
        category=category, round=1, config_hash="0", dim=4, n_images=rows // 2, n_patches=10 * rows,
        raw_image_bytes=1000, covering_radius=radius,
    )  # fmt: skip


def manifest(kind: Any = "partition") -> Manifest:
    return Manifest(kind=kind, path="x", sha256="0" * 64, size_bytes=1, rows=1)


def closed_round(uploads: list[ClientUploads], banks: list[BankManifest]) -> FederationRound:
    return FederationRound(
        round=1, uploads=uploads, banks=banks, upload_rows=0, upload_bytes=0, download_bytes=0, covering_radius={}
    )


def test_the_summary_adds_up_what_each_client_sent() -> None:
    uploads = [
        ClientUploads(client_id="a", uploads=(upload("a", "x", 10, 1.5), upload("a", "y", 6, 2.5)), provenance=()),
        ClientUploads(client_id="b", uploads=(upload("b", "x", 4, 0.5),), provenance=()),
    ]
    partition = Partition(table=manifest(), stats=manifest("partition_stats"), clients=(), skipped_clients=("d",))
    banks = [
        BankManifest(kind="memory_bank", path="x", sha256="0" * 64, size_bytes=1, rows=rows, bank=bank, dim=4)
        for bank, rows in (("x", 12), ("y", 5))
    ]
    federation = Federation(rounds=[closed_round(uploads, banks)], accepted=uploads, causes={"c": "disk"})
    summary = federation_summary("federated", federation, partition)
    assert summary.clients["a"].model_dump() == {
        "train_images": 8,
        "patches": 160,
        "coreset_rows": 16,
        "upload_bytes": 1600,
        "raw_image_bytes": 2000,
        "covering_radius": 2.5,
        "raw_pixel_bytes": 0,
        "download_bytes": 0,
        "coverage": {},
    }
    assert summary.bank_rows == 17
    assert summary.bank_rows_by_category == {"x": 12, "y": 5}
    assert (summary.failed_clients, summary.skipped_clients) == ({"c": "disk"}, ["d"])
    assert summary.banks_without_choice == []


@pytest.mark.parametrize(("mode", "expected"), [("federated", ["x"]), ("centralized", []), ("local_only", [])])
def test_a_bank_that_holds_every_row_of_all_rounds_left_no_choice(mode: str, expected: list[str]) -> None:
    uploads = [
        ClientUploads(client_id=c, uploads=tuple(upload(c, bank, 5, 1.0) for bank in ("x", "x", "y")), provenance=())
        for c in ("a", "b")
    ]
    banks = [
        BankManifest(kind="memory_bank", path="x", sha256="0" * 64, size_bytes=1, rows=rows, bank=bank, dim=4)
        for bank, rows in (("x", 20), ("y", 9))
    ]
    federation = Federation(rounds=[closed_round(uploads, banks)], accepted=uploads)
    assert federation_summary(mode, federation, None).banks_without_choice == expected


# --- the files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def parts(tiny_root: Path, store: ArtifactStore) -> dict[str, Any]:
    """All that a finished run hands over, from made-up maps and scores."""
    index = index_dataset(tiny_root)
    config = ExperimentConfig.model_validate({"name": "lab", "evaluation": {"bootstrap": 10}})
    rng = np.random.default_rng(0)
    banks, scored, measured, test_images = [], [], [], {}
    for category in CATEGORIES:
        rows = category_test_table(index, category)
        maps = rng.random((len(rows), 6, 8), dtype=np.float32)
        scores = rows[["image_id", "category", "label", "label_index", "path", "sha256"]].assign(
            score=maps.max(axis=(1, 2)).astype(float)
        )
        loaders, by_image = stored_maps(rows, maps, scores, 0.0)
        result = evaluate_category(rows, tiny_root, loaders, by_image, EvaluationSettings.of(config))
        document = {subset: metrics.model_dump(mode="json") for subset, metrics in result.metrics.items()}
        test_images[category] = store.write_table("test_images", rows, DATASET_INDEX)
        scored.append(
            ScoredCategory(
                category=category,
                maps=store.write_arrays("anomaly_maps", {"maps": maps}, rows=len(maps)),
                scores=store.write_table("image_scores", scores, IMAGE_SCORES),
            )
        )
        measured.append(
            MeasuredCategory(
                category=category,
                metrics=store.write_json("metrics_document", {"subsets": document, "warnings": [f"{category}: look"]}),
                table=store.write_table("metrics_table", result.table, METRICS_TABLE),
                curves=store.write_table("curves", result.curves, CURVES),
            )
        )
        bank = store.write_arrays("memory_bank", {"features": rng.random((5, 3), dtype=np.float32)}, rows=5)
        banks.append(BankManifest(**bank.model_dump(), bank=category, dim=3))
    train = index[index.split == "train"]
    table = pd.DataFrame({"image_id": train.image_id, "client_id": "client_0"})
    partition = Partition(
        table=store.write_table("partition", table, PARTITION),
        stats=store.write_json("partition_stats", {"n_images": len(train)}),
        clients=(),
    )
    validation = ValidationReport(root=str(tiny_root), layout="autovi")
    indexed = IndexedDataset(
        index=store.write_table("dataset_index", index, DATASET_INDEX), categories=CATEGORIES, truth_sha256={},
        test_images=test_images, n_set_aside=0,
    )  # fmt: skip
    return {
        "config": config,
        "backbone": BackboneSettings(
            backbone="efficientnet_lite0", layers=("blocks.2",), weights_source="random", weights_sha256="0" * 64,
            weights_path=None, seed=0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), neighborhood_size=3,
        ),
        "dataset": PreparedDataset(
            indexed=indexed,
            validation=store.write_json("validation_report", validation.model_dump(mode="json")),
            partition=partition,
        ),
        "federation": Federation(rounds=[closed_round([], banks)]),
        "measured": [MeasuredBanks(scored=scored, measured=measured)],
        "timings_s": {"score": 1.5},
    }  # fmt: skip


@pytest.fixture
def figures(parts: dict[str, Any], store: ArtifactStore) -> RunFigures:
    return experiment_figures(store, **parts)


def end(out: Path, store: ArtifactStore, parts: dict[str, Any], figures: RunFigures) -> ExperimentResult:
    """End the run under one name, so that a later one takes the place of its registration."""
    run = {name: parts[name] for name in ("config", "backbone", "dataset", "federation")}
    last = parts["measured"][-1]
    write_experiment_files(out, store, parts["config"], parts["dataset"], parts["federation"], last)
    return finish_run(FinishedRun("r", out, **run, figures=figures, used=(), scored=last.scored), store)


def test_documents_of_all_and_of_the_halves(parts: dict[str, Any], store: ArtifactStore, figures: RunFigures) -> None:
    documents = figures.documents
    assert list(documents) == ["all", "development", "report"]
    for subset, document in documents.items():
        assert document.subset == subset
        assert list(document.categories) == list(CATEGORIES)
        assert document.warnings[1:] == ["pipe_clip: look", "tank_screw: look"]
        assert "random weights" in document.warnings[0]
        assert (document.timings_s, document.federation.bank_rows) == ({"score": 1.5}, 10)
        assert document.config_hash == parts["config"].config_hash()
        assert document.peak_rss_mb is not None
    whole = documents["all"]
    aurocs = [metrics.image_auroc for metrics in whole.categories.values()]
    assert whole.mean.image_auroc == pytest.approx(np.mean(aurocs))  # type: ignore[arg-type]
    by_subset, warnings = read_categories(parts["measured"][-1].measured[:1], store)
    assert by_subset["report"]["pipe_clip"] == documents["report"].categories["pipe_clip"]
    assert warnings == ["pipe_clip: look"]


def test_every_file_is_there_and_holds_what_it_says(
    tmp_path: Path, parts: dict[str, Any], store: ArtifactStore, figures: RunFigures
) -> None:
    out = tmp_path / "deep" / "run"
    result = end(out, store, parts, figures)
    documents = figures.documents
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml", "environment.json", "metrics.json", "metrics_development.json", "metrics_report.json",
        "metrics.parquet", "curves.parquet", "scores.parquet", "partition.parquet", "partition_stats.json",
        "validation.json", "validation.txt", "dataset_index.parquet", "model.json", "banks/pipe_clip.npz",
        "banks/tank_screw.npz", "report.html", "result.json",
    }  # fmt: skip
    assert not [name for name in names if "tmp" in name]
    assert load_config(out / "config.yaml") == parts["config"]
    assert MetricsDocument.model_validate_json((out / "metrics_report.json").read_text()) == documents["report"]
    assert "packages" in json.loads((out / "environment.json").read_text())
    scores = pq.read_table(out / "scores.parquet")
    assert scores.schema.remove_metadata() == IMAGE_SCORES
    assert scores.num_rows == 2 * 10
    metrics = pq.read_table(out / "metrics.parquet")
    assert metrics.schema.remove_metadata() == METRICS_TABLE
    frame = metrics.to_pandas()
    means = frame[(frame.scope == "mean") & (frame.metric == "image_auroc")]
    assert means.subset.tolist() == ["all", "development", "report"]
    assert means.value.iloc[0] == pytest.approx(documents["all"].mean.image_auroc)
    assert set(pq.read_table(out / "curves.parquet").to_pandas().category) == set(CATEGORIES)
    model = json.loads((out / "model.json").read_text())
    assert BackboneSettings.model_validate(model["backbone"]) == parts["backbone"]
    assert "calibration" not in model  # there are no scores
    assert ExperimentResult.model_validate_json((out / "result.json").read_text()) == result
    assert MetricsDocument.model_validate(store.read_json(result.metrics)) == documents["all"]
    registered = store.recall("runs", "r")
    assert registered is not None
    assert {result.metrics.path, parts["dataset"].validation.path, *(b.path for b in result.banks)} <= {
        *registered["paths"]
    }
    for bank in parts["federation"].banks:
        entry = model["banks"][bank.bank]
        assert (entry["rows"], entry["dim"]) == (5, 3)
        features = np.load(out / entry["file"], allow_pickle=False)["features"]
        assert np.array_equal(features, store.read_arrays(bank)["features"])
    assert str(parts["config"].seed) in (out / "config.yaml").read_text()


def test_a_second_run_into_the_directory_replaces_its_files(
    tmp_path: Path, parts: dict[str, Any], store: ArtifactStore, figures: RunFigures
) -> None:
    end(tmp_path / "run", store, parts, figures)
    table = store.root / parts["dataset"].partition.table.path
    before = table.read_bytes()
    end(tmp_path / "run", store, {**parts, "config": parts["config"].model_copy(update={"seed": 77})}, figures)
    assert load_config(tmp_path / "run" / "config.yaml").seed == 77
    assert table.read_bytes() == before


def test_a_damaged_artifact_is_not_copied(tmp_path: Path, parts: dict[str, Any], store: ArtifactStore) -> None:
    bank = parts["federation"].banks[0]
    (store.root / bank.path).write_bytes(b"0" * bank.size_bytes)
    with pytest.raises(ArtifactError, match="memory_bank is damaged"):
        copy_artifact(store, bank, tmp_path / "bank.npz")
    assert not (tmp_path / "bank.npz").exists()


def test_copies_where_links_cannot_be_made(
    tmp_path: Path, parts: dict[str, Any], store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_args: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "link", refused)
    copy_artifact(store, parts["federation"].banks[0], tmp_path / "banks" / "bank.npz")
    content = (tmp_path / "banks" / "bank.npz").read_bytes()
    assert content == (store.root / parts["federation"].banks[0].path).read_bytes()
    assert [path.name for path in (tmp_path / "banks").iterdir()] == ["bank.npz"]


def test_tables_without_rows_keep_their_schema(tmp_path: Path) -> None:
    write_table_file(tmp_path / "curves.parquet", [], CURVES)
    write_table_file(tmp_path / "more.parquet", [pd.DataFrame()], CURVES)
    for name in ("curves.parquet", "more.parquet"):
        assert pq.read_table(tmp_path / name).schema == CURVES


def test_json_is_for_people_and_without_nan(tmp_path: Path) -> None:
    write_json_file(tmp_path / "a.json", {"z": "Größe", "a": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "z": "Größe",\n "a": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_file(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pipe_clip", "pipe_clip"),
        ("a b/c", "a_b_c-539138d5"),
        ("Größe.1", "Gr_e.1-16cc900d"),
        ("../x", ".._x-d6b96a97"),
    ],
)
def test_safe_names_stay_in_their_directory(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_names_that_differ_keep_files_of_their_own() -> None:
    names = ["a b", "a_b", "a/b", "a:b", "a  b"]
    assert len({safe_name(name) for name in names}) == len(names)
