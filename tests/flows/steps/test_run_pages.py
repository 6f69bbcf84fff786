"""What a person sees of a run: its name, its artifacts in order at the run itself, and why it failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.states import Failed

from data_contracts.config import ExperimentConfig
from data_contracts.federation import Federation
from data_contracts.manifests import Manifest, Partition
from flows.steps import run_pages
from flows.steps.running import partial_state
from tasks.reporting import publish_clients


@pytest.mark.parametrize(
    ("title", "parameters", "expected"),
    [
        (run_pages.experiment_title, {"config": {"name": "iid", "dataset": {"root": "/data/real3"}}}, "iid on real3"),
        (run_pages.experiment_title, {"config": ExperimentConfig(name="iid")}, "iid on lines"),
        (
            run_pages.benchmark_title,
            {"config": {"name": "nightly", "experiments": {"centralized": {}}}},
            "nightly on lines",
        ),
        (run_pages.scoring_title, {"model": "runs/first", "paths": ["a/new", "b"]}, "new and 1 more by first"),
        (
            run_pages.station_title,
            {"config": {"name": "iid"}, "phase": "coreset", "round_number": 2},
            "iid at station-a: coreset, round 2",
        ),
        (run_pages.coordinator_title, {"config": {"name": "iid"}, "stations": ["a", "b"]}, "iid at a, b"),
    ],
)
def test_a_run_is_named_by_experiment_and_data_set(
    title: Callable[[], str], parameters: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDPATCH_DATASET", "/mnt/lines")
    monkeypatch.setenv("FEDPATCH_STATION", "station-a")
    monkeypatch.setattr(run_pages.runtime.flow_run, "parameters", parameters, raising=False)
    assert title() == expected
    monkeypatch.delenv("FEDPATCH_DATASET")


@pytest.mark.usefixtures("prefect_server")
def test_artifacts_belong_to_the_run_and_a_failure_says_why_on_its_page() -> None:
    @flow(flow_run_name=lambda: "made up", on_failure=[run_pages.show_failure])
    def fails() -> Any:
        nothing = Manifest(kind="partition", path="x", sha256="0" * 64, size_bytes=1, rows=1)
        partition = Partition(table=nothing, stats=nothing, clients=(), skipped_clients=("tanks",))
        publish_clients(partition, Federation(causes={"clips": "OSError: disk"}))
        return Failed(message="quorum not met, 0 of 1")

    state = fails(return_state=True)
    assert state.is_failed()
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        found: dict[str | None, Artifact] = {one.key: one for one in client.read_artifacts(artifact_filter=of_run)}
    assert {found["clients"].task_run_id, found["summary"].task_run_id} == {None}
    assert "quorum not met, 0 of 1" in str(found["summary"].data)
    assert "quorum not met" in str(found["summary"].description)


@pytest.mark.usefixtures("prefect_server")
def test_what_a_partial_run_is_without_stands_beside_its_summary() -> None:
    @flow(on_failure=[run_pages.show_failure])
    def partial() -> Any:
        return partial_state("without client_2: OSError: disk", "{}")

    state = partial(return_state=True)
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        (found,) = client.read_artifacts(artifact_filter=of_run)
    assert found.key == "partial"
    assert str(found.data).startswith("## Partial\n\nwithout client_2: OSError: disk")
