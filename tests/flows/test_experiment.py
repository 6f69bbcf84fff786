"""The experiment's flow on tiny images: results, caching, what is redone after a change, failures, determinism."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import DatasetError
from data_contracts.results import MetricsDocument
from flows.experiment import centralized_experiment, federated_experiment
from pipeline_lib.artifact_store import sha256_of_file
from pipeline_lib.saved_partition import save_partition
from tests.conftest import experiment_values

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the library calls behind the stages."""
    import tasks.clients
    import tasks.data
    import tasks.evaluation
    import tasks.server

    counted: Counter[str] = Counter()

    def count(module: Any, name: str, label: str) -> None:
        original = getattr(module, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            counted[label] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    count(tasks.data.dataset_index, "index_dataset", "index")
    count(tasks.data.partition, "partition_images", "partition")
    count(tasks.clients.features, "extract_features", "extract")
    count(tasks.clients.client_coreset, "select_client_coreset", "coreset")
    count(tasks.server.regional_aggregation, "aggregate_pending", "aggregate")
    count(tasks.evaluation.scoring, "score_images", "score")
    count(tasks.evaluation.evaluation, "evaluate_category", "measure")
    return counted


def run(values: dict[str, Any]) -> Any:
    config = ExperimentConfig.model_validate(values)
    flow = centralized_experiment if config.federated.mode == "centralized" else federated_experiment
    return flow(config, return_state=True)


def metrics(values: dict[str, Any]) -> MetricsDocument:
    return MetricsDocument.model_validate_json((Path(values["runtime"]["out"]) / "metrics.json").read_text())


ALL_STAGES = {"index": 1, "partition": 1, "extract": 5, "coreset": 3, "aggregate": 2, "score": 2, "measure": 2}


def test_a_federated_run_measures_and_is_then_served_from_its_artifacts(
    tiny_root: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    values = experiment_values(tiny_root, tmp_path / "store", tmp_path / "run")
    assert run(values).is_completed()
    assert calls == ALL_STAGES
    document = metrics(values)
    assert set(document.categories) == {"pipe_clip", "tank_screw"}
    pipe_clip = document.categories["pipe_clip"]
    assert (pipe_clip.n_good, pipe_clip.n_defective) == (4, 6)
    assert pipe_clip.image_auroc is not None
    assert pipe_clip.image_auroc > 0.8  # black rectangles on smooth grey
    assert pipe_clip.auc_spro["0.3"] is not None
    assert pipe_clip.auc_spro["0.3"] > 0.5
    assert set(pipe_clip.by_folder) == {"missing", "scratch"}
    clients = document.federation.clients
    assert sum(client.train_images for client in clients.values()) == 18
    assert document.federation.bank_rows == sum(round(0.1 * p) for p in (9 * 64, 9 * 96))
    directory = Path(values["runtime"]["out"])
    for name in ("config.yaml", "environment.json", "metrics.parquet", "curves.parquet", "scores.parquet",
                 "partition.parquet", "partition_stats.json", "validation.txt", "banks/pipe_clip.npz"):  # fmt: skip
        assert (directory / name).is_file(), name
    halves = [json.loads((directory / f"metrics_{half}.json").read_text()) for half in ("development", "report")]
    counted = [half["categories"]["pipe_clip"]["n_good"] for half in halves]
    assert sum(counted) == 4

    calls.clear()
    again = experiment_values(tiny_root, tmp_path / "store", tmp_path / "again")
    assert run(again).is_completed()
    assert calls == {}
    assert metrics(again).categories == document.categories


def test_a_changed_ratio_redoes_the_steps_from_the_coreset_on(
    tiny_root: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    values = experiment_values(tiny_root, tmp_path / "store", tmp_path / "run")
    run(values)
    calls.clear()
    run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "b", model={"coreset_percentage": 0.2}))
    assert calls == {"coreset": 3, "aggregate": 2, "score": 2, "measure": 2}
    calls.clear()
    run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "c", evaluation={"bootstrap": 60}))
    assert calls == {"measure": 2}


def test_a_changed_codec_or_noise_selects_nothing_anew(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline_lib import client_coreset

    original, selected = client_coreset.kcenter_selection, []

    def counting(patches: Any, size: int, **keywords: Any) -> Any:
        selected.append(size)
        return original(patches, size, **keywords)

    monkeypatch.setattr(client_coreset, "kcenter_selection", counting)
    run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "a"))
    assert len(selected) == 6  # three clients, two categories
    sent = {"codec": "float16", "clip_norm": 20.0, "noise_sigma": 0.1}
    state = run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "b", upload=sent))
    assert state.is_completed()
    assert len(selected) == 6


def test_centralized_and_federated_share_the_features_of_test_images(
    tiny_root: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "a"))
    calls.clear()
    state = run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "b", federated={"mode": "centralized"}))
    assert state.is_completed()
    assert calls == {"partition": 1, "extract": 1, "coreset": 1, "aggregate": 2, "score": 2, "measure": 2}
    assert len(list((tmp_path / "store" / "index" / "image_features").rglob("*.json"))) == 2 * (9 + 10)


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_a_lost_artifact_is_made_again_and_nothing_else(
    tiny_root: Path, tmp_path: Path, calls: Counter[str], how: str
) -> None:
    values = experiment_values(tiny_root, tmp_path / "store", tmp_path / "run")
    run(values)
    document = metrics(values)
    calls.clear()
    upload = sorted((tmp_path / "store" / "objects" / "client_upload").rglob("*.npz"))[0]
    upload.unlink() if how == "deleted" else upload.write_bytes(b"0" * upload.stat().st_size)
    run(values)
    assert calls == {"coreset": 1}  # the bank made from it is intact
    calls.clear()
    features = sorted((tmp_path / "store" / "objects" / "image_features").rglob("*.npy"))[0]
    features.unlink() if how == "deleted" else features.write_bytes(b"0" * features.stat().st_size)
    run(values)
    assert calls == {"extract": 1}
    assert metrics(values).categories == document.categories


def test_a_changed_image_redoes_its_client_and_what_hangs_on_it(
    tiny_root: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_root, root)
    values = experiment_values(root, tmp_path / "store", tmp_path / "run", federated={"partitioning": "time"})
    run(values)
    calls.clear()
    image = sorted((root / "pipe_clip" / "train" / "good").iterdir())[0]
    other = sorted((root / "tank_screw" / "train" / "good").iterdir())[0]
    shutil.copyfile(other, image)
    run(values)
    expected = {"index": 1, "partition": 1, "extract": 1, "coreset": 1, "aggregate": 1, "score": 1, "measure": 1}
    assert calls == expected


def artifacts(store: Path) -> set[str]:
    return {f"{p.parent.parent.name}/{p.name}" for p in (store / "objects").rglob("*") if p.is_file()}


def test_same_bytes_with_one_and_with_three_workers(tiny_root: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        values = experiment_values(
            tiny_root, tmp_path / f"store{workers}", tmp_path / f"run{workers}", runtime={"workers": workers}
        )
        assert run(values).is_completed()
    one, three = (
        {name for name in artifacts(tmp_path / f"store{n}") if not name.startswith("metrics_document")} for n in (1, 3)
    )
    assert one == three
    assert len(one) > 30
    for name in ("scores.parquet", "curves.parquet", "metrics.parquet", "banks/pipe_clip.npz", "banks/tank_screw.npz"):
        assert sha256_of_file(tmp_path / "run1" / name) == sha256_of_file(tmp_path / "run3" / name), name


def test_process_pool_gives_the_same_bank(tiny_root: Path, tmp_path: Path) -> None:
    for runner in ("threads", "processes"):
        values = experiment_values(
            tiny_root,
            tmp_path / runner,
            tmp_path / f"run_{runner}",
            dataset={"categories": ["pipe_clip"]},
            federated={"num_clients": 2},
            runtime={"task_runner": runner, "workers": 2},
        )
        assert run(values).is_completed()
    banks = [sha256_of_file(tmp_path / f"run_{r}" / "banks" / "pipe_clip.npz") for r in ("threads", "processes")]
    assert banks[0] == banks[1]


def test_too_few_clients_fail_the_run_and_enough_make_it_partial(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Counter[str]
) -> None:
    import tasks.clients

    original = tasks.clients.client_coreset.select_client_coreset

    def failing(table: pd.DataFrame, store: Any, client_id: str, *args: Any, **kwargs: Any) -> Any:
        if client_id == "client_1":
            raise OSError(5, "Input/output error", "/dev/camera")
        return original(table, store, client_id, *args, **kwargs)

    monkeypatch.setattr(tasks.clients.client_coreset, "select_client_coreset", failing)
    strict = experiment_values(tiny_root, tmp_path / "store", tmp_path / "a", federated={"min_clients": 3})
    state = run(strict)
    assert state.is_failed()
    assert "quorum not met, 2 of 3" in state.message
    assert "client_1: OSError" in state.message
    assert "/dev/camera" in state.message

    partial = experiment_values(tiny_root, tmp_path / "store", tmp_path / "b", federated={"min_clients": 2})
    state = run(partial)
    assert (state.name, state.is_completed()) == ("CompletedPartial", True)
    assert "client_1" in state.message
    document = metrics(partial)
    assert set(document.federation.clients) == {"client_0", "client_2"}
    assert "Input/output error" in document.federation.failed_clients["client_1"]
    assert any("client_1" in warning for warning in document.warnings)

    monkeypatch.setattr(tasks.clients.client_coreset, "select_client_coreset", original)
    calls.clear()
    mended = run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "c", federated={"min_clients": 3}))
    assert mended.name == "Completed"
    assert calls["extract"] == 0


@pytest.mark.parametrize(
    ("error", "tries"),
    [(MemoryError("no room for 3 GiB"), 2), (DatasetError("image a.png has changed"), 1), (PermissionError("no"), 1)],
)
def test_a_transient_cause_is_tried_again_by_the_task_and_bad_data_is_not(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    import tasks.clients

    original = tasks.clients.client_coreset.select_client_coreset
    tried: Counter[str] = Counter()

    def failing_once(table: pd.DataFrame, store: Any, client_id: str, *args: Any, **kwargs: Any) -> Any:
        tried[client_id] += 1
        if client_id == "client_1" and tried[client_id] == 1:
            raise error
        return original(table, store, client_id, *args, **kwargs)

    monkeypatch.setattr(tasks.clients.client_coreset, "select_client_coreset", failing_once)
    state = run(experiment_values(tiny_root, tmp_path / "store", tmp_path / "a", federated={"min_clients": 3}))
    assert tried == {"client_0": 1, "client_1": tries, "client_2": 1}
    assert state.is_completed() == (tries == 2)
    assert tries == 2 or f"client_1: {'PermissionError: ' * isinstance(error, OSError)}{error}" in state.message


def test_a_client_without_images_is_named_and_does_not_count_among_all(
    tiny_root: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    federated = {"partitioning": "category", "client_assignments": {"clips": ["pipe_clip"], "tanks": ["tank_screw"]}}
    values = experiment_values(
        tiny_root, tmp_path / "store", tmp_path / "a", federated=federated, dataset={"categories": ["pipe_clip"]}
    )
    refused = run({**values, "federated": {**values["federated"], "min_clients": 2}})
    assert refused.is_failed()
    assert "min_clients is 2, clients with images: 1; without images: tanks" in refused.message
    assert calls["extract"] == 0
    state = run(values)
    assert (state.name, state.message) == ("Completed", "without images: tanks")
    document = metrics(values)
    assert any("client tanks has no images" in warning for warning in document.warnings)
    assert list(document.federation.clients) == ["clips"]
    assert document.federation.skipped_clients == ["tanks"]


def test_category_partition_with_one_owner_equals_the_baseline(tiny_root: Path, tmp_path: Path) -> None:
    federated = {"partitioning": "category", "client_assignments": {"a": ["pipe_clip"], "b": ["tank_screw"]}}
    a = experiment_values(tiny_root, tmp_path / "store", tmp_path / "a", federated=federated)
    b = experiment_values(tiny_root, tmp_path / "store", tmp_path / "b", federated={"mode": "centralized"})
    assert run(a).is_completed()
    assert run(b).is_completed()
    assert metrics(a).federation.bank_rows == metrics(b).federation.bank_rows


def test_damaged_images_are_set_aside_and_listed(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_root, root)
    bad = sorted((root / "pipe_clip" / "train" / "good").iterdir())[2]
    bad.write_bytes(bad.read_bytes()[:60])
    values = experiment_values(root, tmp_path / "store", tmp_path / "run")
    assert run(values).is_completed()
    document = metrics(values)
    assert any("1 images cannot be read" in warning for warning in document.warnings)
    assert bad.name in (tmp_path / "run" / "validation.txt").read_text()
    strict = experiment_values(root, tmp_path / "store", tmp_path / "b", dataset={"on_bad_image": "fail"})
    state = run(strict)
    assert state.is_failed()
    assert bad.name in str(state.result(raise_on_failure=False))


def test_thresholds_come_from_out_of_fold_scores_of_each_client(
    tiny_root: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    values = experiment_values(tiny_root, tmp_path / "store", tmp_path / "run", decision={"blocks": 3})
    assert run(values).is_completed()
    scores = pd.read_parquet(tmp_path / "run" / "calibration.parquet")
    assert scores.groupby("category").size().to_dict() == {"pipe_clip": 9, "tank_screw": 9}
    assert set(scores.client_id) == {"client_0", "client_1", "client_2"}
    assert (scores.score > 0).all()  # no image was scored by its own patches
    decision = metrics(values).categories["pipe_clip"].decision
    assert decision is not None
    assert (decision.n_calibration, decision.n_good, decision.n_defective) == (9, 4, 6)
    assert decision.threshold == pytest.approx(scores[scores.category == "pipe_clip"].score.max())
    assert decision.upper_bound is None
    assert "at least 59" in decision.note
    assert set(decision.by_client) == {"client_0", "client_1", "client_2"}
    calls.clear()
    stricter = experiment_values(
        tiny_root, tmp_path / "store", tmp_path / "b", decision={"blocks": 3, "target_false_alarm_rate": 0.4}
    )
    assert run(stricter).is_completed()
    assert calls == {}  # another rate is another threshold on the same scores
    other = metrics(stricter).categories["pipe_clip"].decision
    assert other is not None
    assert other.threshold is not None
    assert other.threshold < decision.threshold


def test_a_run_on_a_saved_partition_is_the_run_that_it_was_saved_from(tiny_root: Path, tmp_path: Path) -> None:
    first = experiment_values(tiny_root, tmp_path / "store", tmp_path / "a")
    assert run(first).is_completed()
    save_partition(
        pd.read_parquet(tmp_path / "a" / "partition.parquet"),
        json.loads((tmp_path / "a" / "partition_stats.json").read_text()),
        tmp_path / "saved",
    )
    saved = {"partitioning": "saved", "partition_path": str(tmp_path / "saved"), "min_clients": 3}
    second = experiment_values(tiny_root, tmp_path / "store", tmp_path / "b", federated=saved)
    assert run(second).is_completed()
    assert metrics(second).categories == metrics(first).categories
    frame = pd.read_parquet(tmp_path / "saved" / "partition.parquet")
    frame["client_id"] = frame["client_id"].map({"client_0": "north", "client_1": "north", "client_2": "south"})
    save_partition(frame, {}, tmp_path / "saved")
    third = experiment_values(tiny_root, tmp_path / "store", tmp_path / "c", federated={**saved, "min_clients": 2})
    assert run(third).is_completed()
    assert set(metrics(third).federation.clients) == {"north", "south"}


def test_an_approximate_search_says_what_it_missed(tiny_root: Path, tmp_path: Path) -> None:
    values = experiment_values(tiny_root, tmp_path / "store", tmp_path / "a", inference={"search": "hnsw"})
    assert run(values).is_completed()
    (said,) = [w for w in metrics(values).warnings if w.startswith("pipe_clip: the approximate search found")]
    assert "% of the nearest rows" in said
