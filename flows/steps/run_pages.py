"""What a person sees of a run in the Prefect UI before opening its results: its name, and why it failed."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

from prefect import Flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import DatasetConfig, ExperimentConfig
from flows.steps.running import PARTIAL
from tasks.reporting import SUMMARY

RAISED = "Flow run encountered an exception: "


def title(name: str, dataset: DatasetConfig) -> str:
    """Experiment and data set, such as `real3_iid on real3`; the worker's data set where the configuration has none."""
    root = dataset.root or os.environ.get("FEDPATCH_DATASET")
    return f"{name} on {Path(root).name}" if root else name


def experiment_title() -> str:
    """The name of a run of one experiment."""
    config = ExperimentConfig.model_validate(runtime.flow_run.parameters["config"])
    return title(config.name, config.dataset)


def benchmark_title() -> str:
    """The name of a run of a benchmark."""
    config = BenchmarkConfig.model_validate(runtime.flow_run.parameters["config"])
    return title(config.name, config.base.dataset)


def scoring_title() -> str:
    """The name of a run that scores images: by which model, and what."""
    model, paths = Path(runtime.flow_run.parameters["model"]), runtime.flow_run.parameters["paths"]
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{Path(paths[0]).name}{more} by {model.name}" if paths else f"nothing by {model.name}"


def station_title() -> str:
    """The name of a station's run: experiment, station, and what it is asked for."""
    config = ExperimentConfig.model_validate(runtime.flow_run.parameters["config"])
    phase, number = runtime.flow_run.parameters["phase"], runtime.flow_run.parameters["round_number"]
    return f"{config.name} at {os.environ.get('FEDPATCH_STATION', 'a station')}: {phase}, round {number}"


def coordinator_title() -> str:
    """The name of a coordinator's run: experiment and stations."""
    config = ExperimentConfig.model_validate(runtime.flow_run.parameters["config"])
    return f"{config.name} at {', '.join(runtime.flow_run.parameters['stations'])}"


def show_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Put the message of a failed run on its page; otherwise it is in the logs and under Details alone.

    Beside the summary of a partial run, which has a result; in its place where there is none.
    """
    name = state.name or "Failed"
    message = (state.message or "no message").removeprefix(RAISED)
    with get_client(sync_client=True) as client:
        client.create_artifact(
            ArtifactCreate(
                key="partial" if name == PARTIAL else SUMMARY,
                type="markdown",
                description=textwrap.shorten(f"{name}: {message}", 200, placeholder=" ..."),
                data=f"## {name}\n\n{message}\n\nMend the cause, then *Retry*: what was finished is not done again.",
                flow_run_id=flow_run.id,
            )
        )
