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
from data_contracts.errors import ConfigError, DatasetError
from data_contracts.manifests import ExperimentResult
from data_contracts.results import MetricsDocument
from flows.cli.experiment.experiments import run_and_describe
from flows.experiment import centralized_experiment, federated_experiment
from pipeline_lib.inspection.run_model import open_run_model
from pipeline_lib.partition.saved import save_partition
from pipeline_lib.storage.artifact_store import sha256_of_file
from pipeline_lib.storage.references import manifests_in
from tasks.caching.policy import RECORDS_DIRECTORY
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
    count(tasks.data.assignment, "partition_images", "partition")
    count(tasks.clients.extraction, "extract_features", "extract")
    count(tasks.clients.rounds, "select_client_coreset", "coreset")
    count(tasks.server.regions, "aggregate_pending", "aggregate")
    count(tasks.evaluation.scoring, "score_images", "score")
    count(tasks.evaluation.evaluation, "evaluate_category", "measure")
    return counted


def run(values: dict[str, Any]) -> Any:
    config = ExperimentConfig.model_validate(values)
    flow = centralized_experiment if config.federated.mode == "centralized" else federated_experiment
    return flow(config, return_state=True)


def metrics(values: dict[str, Any]) -> MetricsDocument:
    return document_of(Path(values["runtime"]["out"]))


def document_of(run: Path) -> MetricsDocument:
    return MetricsDocument.model_validate_json((run / "metrics.json").read_text())


ALL_STAGES = {"index": 1, "partition": 1, "extract": 5, "coreset": 3, "aggregate": 2, "score": 2, "measure": 2}


def artifacts(store: Path) -> set[str]:
    return {f"{p.parent.parent.name}/{p.name}" for p in (store / "objects").rglob("*") if p.is_file()}


def test_a_federated_run_measures_gives_the_same_bytes_with_any_workers_and_is_then_served_from_its_artifacts(
    tiny_root: Path, tmp_path: Path, finished: Path, calls: Counter[str]
) -> None:
    values = experiment_values(tiny_root, tmp_path / "store", tmp_path / "run", runtime={"workers": 3})
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

    three, one = (
        {name for name in artifacts(store) if not name.startswith("metrics_document")}
        for store in (tmp_path / "store", finished / "store")
    )
    assert one == three
    assert len(one) > 30
    for name in ("scores.parquet", "curves.parquet", "metrics.parquet", "banks/pipe_clip.npz", "banks/tank_screw.npz"):
        assert sha256_of_file(finished / "run" / name) == sha256_of_file(directory / name), name

    calls.clear()
    again = experiment_values(tiny_root, tmp_path / "store", tmp_path / "again")
    assert run(again).is_completed()
    assert calls == {}
    assert metrics(again).categories == document.categories


@pytest.mark.slow
def test_features_that_are_not_kept_give_the_same_bytes_and_are_made_where_they_are_asked_for(
    tiny_root: Path, tmp_path: Path, finished: Path, calls: Counter[str]
) -> None:
    root = shutil.copytree(tiny_root, tmp_path / "data")

    def values(name: str, root: Path = root, **runtime: Any) -> dict[str, Any]:
        return experiment_values(root, tmp_path / "store", tmp_path / name, runtime=runtime)

    def others(store: Path) -> set[str]:
        leave_out = ("metrics_document", "image_features", "validation_report")  # times, and the data set's root
        return {name for name in artifacts(store) if not name.startswith(leave_out)}

    assert run(values("without", keep_features=False)).is_completed()
    assert calls == ALL_STAGES
    assert {path.suffix for path in (tmp_path / "store" / "objects" / "image_features").rglob("*.*")} == {".json"}
    assert others(tmp_path / "store") == others(finished / "store")
    assert metrics(values("without")).config_hash == document_of(finished / "run").config_hash
    calls.clear()
    moved = root.rename(tmp_path / "moved")
    values_again = experiment_values(
        moved,
        tmp_path / "store",
        tmp_path / "again",
        model={"coreset_percentage": 0.2},
        runtime={"keep_features": False},
    )
    assert run(values_again).is_completed()
    assert calls == {"coreset": 3, "aggregate": 2, "score": 2, "measure": 2}
    calls.clear()
    assert run(values("kept", root=moved)).is_completed()
    assert calls == {"extract": 5}


def test_a_change_redoes_the_steps_from_the_first_that_it_concerns(
    tiny_root: Path, tmp_path: Path, store: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline_lib.client import selection

    original, selected = selection.kcenter_selection, []

    def counting(patches: Any, size: int, **keywords: Any) -> Any:
        selected.append(size)
        return original(patches, size, **keywords)

    monkeypatch.setattr(selection, "kcenter_selection", counting)
    ratio = {"coreset_percentage": 0.2}
    run(experiment_values(tiny_root, store, tmp_path / "a", model=ratio))
    from_the_coreset_on = {"coreset": 3, "aggregate": 2, "score": 2, "measure": 2}
    assert calls == from_the_coreset_on
    assert len(selected) == 6  # three clients, two categories
    calls.clear()
    sent = {"codec": "float16", "clip_norm": 20.0, "noise_sigma": 0.1}
    assert run(experiment_values(tiny_root, store, tmp_path / "b", model=ratio, upload=sent)).is_completed()
    assert calls == from_the_coreset_on
    assert len(selected) == 6  # another codec or noise selects nothing anew
    calls.clear()
    run(experiment_values(tiny_root, store, tmp_path / "c", evaluation={"bootstrap": 60}))
    assert calls == {"measure": 2}


def test_the_baseline_shares_the_features_of_test_images_and_has_the_bank_of_owners_of_a_category(
    tiny_root: Path, tmp_path: Path, store: Path, calls: Counter[str]
) -> None:
    baseline = experiment_values(tiny_root, store, tmp_path / "a", federated={"mode": "centralized"})
    assert run(baseline).is_completed()
    assert calls == {"partition": 1, "extract": 1, "coreset": 1, "aggregate": 2, "score": 2, "measure": 2}
    assert len(list((store / "index" / "image_features").rglob("*.json"))) == 2 * (9 + 10)
    federated = {"partitioning": "category", "client_assignments": {"a": ["pipe_clip"], "b": ["tank_screw"]}}
    owners = experiment_values(tiny_root, store, tmp_path / "b", federated=federated)
    assert run(owners).is_completed()
    assert metrics(owners).federation.bank_rows == metrics(baseline).federation.bank_rows


def of_each(store: Path, task: Any, kind: str) -> list[Path]:
    """The first artifact of this kind of each run of the task."""
    records = sorted((store / RECORDS_DIRECTORY).glob(f"{task.name}-*"))
    found = [[m for m in manifests_in(json.loads(record.read_text())) if m.kind == kind] for record in records]
    return [store / manifests[0].path for manifests in found]


def test_lost_artifacts_are_made_again_and_nothing_else(
    tiny_root: Path, tmp_path: Path, finished: Path, store: Path, calls: Counter[str]
) -> None:
    import tasks.clients

    values = experiment_values(tiny_root, store, tmp_path / "run")
    uploads = of_each(store, tasks.clients.select_client_coreset, "client_upload")
    tables = of_each(store, tasks.clients.extract_client_features, "patch_features")
    features = [store / pd.read_parquet(table)["path"].iloc[0] for table in tables]
    for (deleted, damaged, _), redone in ((uploads, "coreset"), (features, "extract")):
        deleted.unlink()
        damaged.write_bytes(b"0" * damaged.stat().st_size)
        calls.clear()
        assert run(values).is_completed()
        assert calls == {redone: 2}  # what was made from it is intact
    assert metrics(values).categories == document_of(finished / "run").categories


def test_a_changed_image_redoes_its_client_and_what_hangs_on_it(
    tiny_root: Path, tmp_path: Path, store: Path, calls: Counter[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_root, root)
    values = experiment_values(root, store, tmp_path / "run", federated={"partitioning": "time"})
    run(values)
    calls.clear()
    image = sorted((root / "pipe_clip" / "train" / "good").iterdir())[0]
    other = sorted((root / "tank_screw" / "train" / "good").iterdir())[0]
    shutil.copyfile(other, image)
    run(values)
    expected = {"index": 1, "partition": 1, "extract": 1, "coreset": 1, "aggregate": 1, "score": 1, "measure": 1}
    assert calls == expected


@pytest.mark.slow
def test_process_pool_gives_the_same_bank(tiny_root: Path, tmp_path: Path, store: Path) -> None:
    sections = {"dataset": {"categories": ["pipe_clip"]}, "federated": {"num_clients": 2}}
    for runner in ("processes", "threads"):
        own = shutil.copytree(store, tmp_path / runner)
        runtime = {"task_runner": runner, "workers": 1}
        assert run(
            experiment_values(tiny_root, own, tmp_path / f"run_{runner}", runtime=runtime, **sections)
        ).is_completed()
    banks = [sha256_of_file(tmp_path / f"run_{r}" / "banks" / "pipe_clip.npz") for r in ("threads", "processes")]
    assert banks[0] == banks[1]


def test_too_few_clients_fail_the_run_and_enough_make_it_partial(
    tiny_root: Path,
    tmp_path: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: Counter[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    import tasks.clients

    original = tasks.clients.rounds.select_client_coreset

    def failing(table: pd.DataFrame, store: Any, client_id: str, *args: Any, **kwargs: Any) -> Any:
        if client_id == "client_1":
            raise OSError(5, "Input/output error", "/dev/camera")
        return original(table, store, client_id, *args, **kwargs)

    def values(out: str, min_clients: int) -> dict[str, Any]:
        model, federated = {"coreset_percentage": 0.2}, {"min_clients": min_clients}
        return experiment_values(tiny_root, store, tmp_path / out, model=model, federated=federated)

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", failing)
    state = run(values("a", 3))
    assert state.is_failed()
    assert "quorum not met, 2 of 3" in state.message
    assert "client_1: OSError" in state.message
    assert "/dev/camera" in state.message

    partial = values("b", 2)
    state = run(partial)
    assert (state.name, state.is_failed()) == ("Partial", True)  # a type that every UI of Prefect retries
    result = ExperimentResult.model_validate_json(state.result(raise_on_failure=False))
    assert result.run_directory == partial["runtime"]["out"]
    assert "client_1" in state.message
    document = metrics(partial)
    assert set(document.federation.clients) == {"client_0", "client_2"}
    assert "Input/output error" in document.federation.failed_clients["client_1"]
    assert any("client_1" in warning for warning in document.warnings)
    described = run_and_describe(ExperimentConfig.model_validate(partial), quiet=True).metrics  # no error
    assert described.federation.failed_clients == document.federation.failed_clients
    assert described.categories == document.categories
    assert "fedpatch: client client_1 failed: OSError" in capsys.readouterr().err

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", original)
    calls.clear()
    mended = run(values("c", 3))
    assert mended.name == "Completed"
    assert calls["extract"] == 0


def test_a_transient_cause_is_tried_again_by_the_task_and_bad_data_is_not(
    tiny_root: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.clients

    original = tasks.clients.rounds.select_client_coreset
    tried: Counter[str] = Counter()
    causes = {"client_1": MemoryError("no room for 3 GiB"), "client_2": DatasetError("image a.png has changed")}

    def failing_once(table: pd.DataFrame, store: Any, client_id: str, *args: Any, **kwargs: Any) -> Any:
        tried[client_id] += 1
        if client_id in causes and tried[client_id] == 1:
            raise causes[client_id]
        return original(table, store, client_id, *args, **kwargs)

    monkeypatch.setattr(tasks.clients.rounds, "select_client_coreset", failing_once)
    sections: dict[str, Any] = {"model": {"coreset_percentage": 0.2}, "federated": {"min_clients": 2}}
    state = run(experiment_values(tiny_root, store, tmp_path / "a", **sections))
    assert tried == {"client_0": 1, "client_1": 2, "client_2": 1}
    assert state.name == "Partial"
    assert state.message == "without client_2: image a.png has changed"


def test_groups_go_through_a_run_to_blocks_thresholds_halves_and_warnings(
    tiny_root: Path, tmp_path: Path, store: Path, calls: Counter[str]
) -> None:
    alone = experiment_values(tiny_root, store, tmp_path / "alone", decision={"blocks": 3})
    pairs = {f"pipe_clip/train/good/{n:04d}.png": n // 2 for n in range(9)}
    pairs |= {f"pipe_clip/test/good/{n:04d}.png": 100 + n // 2 for n in range(4)}
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    rule = {"file": str(tmp_path / "pairs.json")}
    grouped = experiment_values(tiny_root, store, tmp_path / "run", decision={"blocks": 3}, dataset={"group": rule})
    assert run(alone).is_completed()
    calls.clear()
    assert run(grouped).is_completed()
    assert not {"index", "extract", "coreset"} & set(calls)  # groups are asked after the images were read
    groups = pd.read_parquet(tmp_path / "run" / "groups.parquet")
    assert set(groups.group) == {f"pipe_clip/{n}" for n in (0, 1, 2, 3, 4, 100, 101)}
    scores = pd.read_parquet(tmp_path / "run" / "calibration.parquet")
    assert set(scores.group[scores.category == "tank_screw"]) == {-1}
    assert scores.group[scores.category == "pipe_clip"].nunique() == 5
    assert "group" not in pd.read_parquet(tmp_path / "alone" / "calibration.parquet")
    assert not (tmp_path / "alone" / "groups.parquet").exists()
    document = metrics(grouped)
    decision = document.categories["pipe_clip"].decision
    assert decision is not None
    assert (decision.n_groups, decision.n_calibration) == (5, 9)
    assert any("several clients have images of one group" in warning for warning in document.warnings)
    assert any("more than a tenth" in warning for warning in document.warnings)
    assert "large_group" in (tmp_path / "run" / "validation.txt").read_text()
    whole = experiment_values(
        tiny_root, store, tmp_path / "whole", dataset=grouped["dataset"], federated={"partition_groups": True}
    )
    assert run(whole).is_completed()
    assert not any("several clients" in warning for warning in metrics(whole).warnings)


def test_a_bound_that_the_images_do_not_bear_is_refused_before_anything_is_computed(
    tiny_root: Path, tmp_path: Path, store: Path, calls: Counter[str]
) -> None:
    state = run(experiment_values(tiny_root, store, tmp_path / "run", decision={"promise": "bound"}))
    assert state.is_failed()
    assert "needs 59 normal images, pipe_clip has 9" in str(state.message)
    assert not calls
    borne = {"promise": "bound", "target_false_alarm_rate": 0.3, "blocks": 3}
    values = experiment_values(tiny_root, store, tmp_path / "borne", decision=borne)
    assert run(values).is_completed()
    decision = metrics(values).categories["pipe_clip"].decision
    assert decision is not None
    assert decision.upper_bound is not None
    assert decision.upper_bound <= 0.3
    assert "needs 9 normal images, there are 3" in decision.by_client["client_0"].note
    with pytest.raises(ConfigError, match="needs 59 normal images, there are 9"):
        open_run_model(tmp_path / "borne", target_rate=0.05)


def test_thresholds_come_from_out_of_fold_scores_of_each_client(
    tiny_root: Path, tmp_path: Path, store: Path, calls: Counter[str]
) -> None:
    values = experiment_values(tiny_root, store, tmp_path / "run", decision={"blocks": 3})
    assert run(values).is_completed()
    scores = pd.read_parquet(tmp_path / "run" / "calibration.parquet")
    assert scores.groupby("category").size().to_dict() == {"pipe_clip": 9, "tank_screw": 9}
    assert set(scores.client_id) == {"client_0", "client_1", "client_2"}
    assert (scores.score > 0).all()  # no image was scored by its own patches
    decision = metrics(values).categories["pipe_clip"].decision
    assert decision is not None
    assert (decision.n_calibration, decision.n_good, decision.n_defective) == (9, 4, 6)
    assert decision.threshold == pytest.approx(scores[scores.category == "pipe_clip"].score.max())
    assert decision.upper_bound == pytest.approx(1 - 0.05 ** (1 / 9))
    assert "9 normal images are too few for a nominal rate of 5 %" in decision.note
    assert set(decision.by_client) == {"client_0", "client_1", "client_2"}
    calls.clear()
    stricter = experiment_values(
        tiny_root, store, tmp_path / "b", decision={"blocks": 3, "target_false_alarm_rate": 0.4}
    )
    assert run(stricter).is_completed()
    assert calls == {}  # another rate is another threshold on the same scores
    other = metrics(stricter).categories["pipe_clip"].decision
    assert other is not None
    assert other.threshold is not None
    assert other.threshold < decision.threshold


@pytest.mark.slow
def test_a_run_on_a_saved_partition_is_the_run_that_it_was_saved_from(
    tiny_root: Path, tmp_path: Path, finished: Path, store: Path
) -> None:
    first = finished / "run"
    save_partition(
        pd.read_parquet(first / "partition.parquet"),
        json.loads((first / "partition_stats.json").read_text()),
        tmp_path / "saved",
    )
    saved = {"partitioning": "saved", "partition_path": str(tmp_path / "saved"), "min_clients": 3}
    second = experiment_values(tiny_root, store, tmp_path / "b", federated=saved)
    assert run(second).is_completed()
    before = MetricsDocument.model_validate_json((first / "metrics.json").read_text())
    assert metrics(second).categories == before.categories
    frame = pd.read_parquet(tmp_path / "saved" / "partition.parquet")
    frame["client_id"] = frame["client_id"].map({"client_0": "north", "client_1": "north", "client_2": "south"})
    save_partition(frame, {}, tmp_path / "saved")
    third = experiment_values(tiny_root, store, tmp_path / "c", federated={**saved, "min_clients": 2})
    assert run(third).is_completed()
    assert set(metrics(third).federation.clients) == {"north", "south"}


def test_an_approximate_search_says_what_it_missed(tiny_root: Path, tmp_path: Path, store: Path) -> None:
    values = experiment_values(tiny_root, store, tmp_path / "a", inference={"search": "hnsw"})
    assert run(values).is_completed()
    (said,) = [w for w in metrics(values).warnings if w.startswith("pipe_clip: the approximate search found")]
    assert "% of the nearest rows" in said
