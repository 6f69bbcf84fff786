"""How tasks are run: on which runner, where, and what is said about clients that failed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from typing import Any, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from data_contracts.config import ExperimentConfig, RuntimeConfig
from data_contracts.errors import ConfigError
from data_contracts.settings import Place, place_of
from tasks import resources

R = TypeVar("R")

PARTIAL = "Partial"

KILLED = "a worker process was killed, and all that the pool was at went with it; retry goes on from what is finished"


def located(config: ExperimentConfig, place: Place) -> ExperimentConfig:
    """The configuration as it goes into the run directory: with the data set and the store that were used."""
    dataset = config.dataset.model_copy(update={"root": place.data_root})
    runtime = config.runtime.model_copy(update={"store": place.store})
    return config.model_copy(update={"dataset": dataset, "runtime": runtime})


def refuse_what_does_not_fit(configs: Mapping[str, ExperimentConfig], *, force: bool) -> None:
    """Raise ResourceError, saying what is short, when this machine cannot hold one of the runs (name -> config).

    A retry is not looked at: what it needs is partly there already.
    """
    if not force and flow_run.run_count <= 1:
        resources.refuse_what_does_not_fit({name: (config, place_of(config)) for name, config in configs.items()})


def task_runner(runtime: RuntimeConfig) -> TaskRunner[Any]:
    """The configured task runner; as many tasks at a time as there are cores unless `workers` is given."""
    workers = runtime.workers or max(1, (os.cpu_count() or 1) // runtime.threads)
    match runtime.task_runner:
        case "threads":
            return ThreadPoolTaskRunner(max_workers=workers)
        case "processes":
            return ProcessPoolTaskRunner(max_workers=workers)
        case "dask":
            try:
                from prefect_dask.task_runners import DaskTaskRunner
            except ImportError as error:
                raise ConfigError("runtime.task_runner: dask needs the extra: pip install 'fedpatch[dask]'") from error
            if runtime.dask_address:
                return DaskTaskRunner(address=runtime.dask_address)
            return DaskTaskRunner(cluster_kwargs={"n_workers": workers, "threads_per_worker": 1})


def submit(runner: TaskRunner[Any], task: Task[..., R], **parameters: Any) -> PrefectFuture[R]:
    """Hand a task to the runner; parameters may be futures of other tasks."""
    future: PrefectFuture[R] = runner.submit(task, parameters=parameters)
    return future


def failure_of(future: PrefectFuture[Any]) -> str | None:
    """Why a task failed, in one line, or None when it completed. Waits for it."""
    try:
        future.wait()
    except BrokenExecutor:
        return KILLED
    if future.state.is_completed():
        return None
    cause = future.result(raise_on_failure=False)
    text = str(cause) if isinstance(cause, BaseException) and str(cause) else future.state.message or future.state.name
    name = f"{type(cause).__name__}: " if isinstance(cause, OSError | MemoryError) else ""
    return name + (text or "unknown").splitlines()[0]


def partial_state(message: str, data: str) -> State[Any]:
    """The state of a run that has a result, `data`, without some of its clients, which `message` names.

    Its type is Failed, which every UI retries (docs/decisions/partial_runs.md); `state.result(raise_on_failure=False)`
    returns the result.
    """
    return Failed(name=PARTIAL, message=message, data=data)
