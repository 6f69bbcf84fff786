"""What all stages share: progress that people see, in the log and as a bar in the UI."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import Failed

from data_contracts.config import DatasetConfig, FederatedConfig, ModelConfig, PreprocessingConfig
from data_contracts.errors import ArtifactError, ConfigError, DatasetError, DownloadError, WeightsError
from data_contracts.settings import Place
from tasks import data, inspection, stage
from tasks import progress as tasks_progress
from tasks.data import resolve_backbone


def artifacts_named(key: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))


def work(counts: list[tuple[int, int]], key: str = "extract-client_0") -> None:
    @task
    def working() -> None:
        progress = tasks_progress.progress_bar(key, "client_0: images extracted", steps=4)
        for done, total in counts:
            progress(done, total)

    @flow
    def one_task() -> None:
        working()

    one_task()


def test_progress_moves_one_bar_in_the_ui_and_logs_a_few_lines(
    prefect_server: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="prefect.task_runs"):
        work([(done, 80) for done in range(61)], key="Extract_moves")
    bars = artifacts_named("extract-moves")
    assert [(bar.type, bar.data) for bar in bars] == [("progress", 75.0)]
    assert bars[0].description == "client_0: images extracted"
    lines = [r.getMessage() for r in caplog.records if "images extracted" in r.getMessage()]
    assert lines == [f"client_0: images extracted: {done} of 80" for done in (0, 20, 40, 60)]


def test_a_count_that_starts_again_moves_the_bar_again(prefect_server: None) -> None:
    work([(1, 2), (2, 2), (1, 4)], key="starts-again")
    assert [bar.data for bar in artifacts_named("starts-again")] == [25.0]


def test_a_bar_whose_answer_was_lost_ends_too(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    create = tasks_progress.create_progress_artifact
    asked = []

    def lose_the_first_answer(*args: Any, **options: Any) -> Any:
        made = create(*args, **options)
        asked.append(made)
        if len(asked) == 1:
            raise TimeoutError("the server made it, and its answer came too late")
        return made

    monkeypatch.setattr(tasks_progress, "create_progress_artifact", lose_the_first_answer)
    work([(1, 200), (100, 200), (200, 200)], key="lost-answer")
    assert len(asked) == 2
    assert [bar.data for bar in artifacts_named("lost-answer")] == [100.0, 100.0]


def test_without_a_server_for_artifacts_the_task_goes_on(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise ConnectionError("no server")

    monkeypatch.setattr(tasks_progress, "create_progress_artifact", refuse)
    work([(1, 2), (2, 2)], key="no-server")
    assert len(asked) == 2
    assert artifacts_named("no-server") == []


@pytest.mark.parametrize(
    ("name", "key"), [("extract-Client_0", "extract-client-0"), ("Köln/1", "k-ln-1"), ("##", "unnamed")]
)
def test_a_name_is_made_a_key_that_the_ui_takes(name: str, key: str) -> None:
    assert tasks_progress.artifact_key(name) == key


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (MemoryError("no room for 3 GiB"), True),
        (OSError(5, "Input/output error"), True),
        (ConnectionError("no server"), True),
        (TimeoutError("the store's lock"), True),
        (DownloadError("no network"), True),
        (WeightsError("404"), False),
        (DatasetError("image a.png has changed"), False),
        (ConfigError("wrong"), False),
        (ArtifactError("damaged"), False),
        (PermissionError("no"), False),
        (FileNotFoundError("no"), False),
        (TypeError("no"), False),
    ],
)
def test_what_may_be_gone_by_itself_is_tried_again_and_nothing_else(error: Exception, transient: bool) -> None:
    nothing: Any = None
    assert stage.is_transient(nothing, nothing, Failed(data=error)) is transient


def test_finding_the_weights_is_tried_again_as_a_stage_is() -> None:
    assert resolve_backbone.retry_condition_fn is stage.is_transient
    assert resolve_backbone.retries == len(stage.RETRY_DELAYS_SECONDS)


def test_what_looks_at_files_looks_again_when_a_run_is_retried(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retried run asks its tasks once more, with the same inputs, under the same run's id."""
    looks = dict.fromkeys(("data", "partition", "weights", "images"), 0)

    def look(name: str) -> Any:
        def count(*_args: Any, **_options: Any) -> Any:
            looks[name] += 1
            return [] if name == "images" else str(looks[name])

        return count

    monkeypatch.setattr(data.dataset_index, "dataset_fingerprint", look("data"))
    monkeypatch.setattr(data.saved_partition, "partition_fingerprint", look("partition"))
    monkeypatch.setattr(data.backbone, "resolve_backbone", look("weights"))
    monkeypatch.setattr(inspection.score_session, "ScoreSession", lambda *_, **__: SimpleNamespace(score=lambda _: []))
    monkeypatch.setattr(inspection.run_model, "open_run_model", lambda *_, **__: None)
    monkeypatch.setattr(inspection.decisions, "find_images", look("images"))
    place = Place(store=tmp_path, data_root=tmp_path)
    federated = FederatedConfig(mode="federated", partitioning="saved", partition_path=tmp_path)

    @flow(persist_result=True, result_serializer="json")
    def both_tries() -> None:
        for _ in range(2):
            data.fingerprint_dataset(dataset=DatasetConfig(), place=place)
            data.fingerprint_partition(federated=federated)
            data.resolve_backbone(model=ModelConfig(), preprocessing=PreprocessingConfig(), seed=0)
            inspection.score_paths(tmp_path, [tmp_path], tmp_path, None, False, None)

    both_tries()
    assert looks == dict.fromkeys(looks, 2)
