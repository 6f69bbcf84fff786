"""What all stages share: which failures are worth a second try, and the way onto a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun

from data_contracts.errors import DownloadError, FedpatchError
from data_contracts.settings import Place
from pipeline_lib.configuration.hardware import choose_cuda_kernels, limit_threads
from pipeline_lib.features.feature_store import FeatureStore
from tasks.caching.policy import RECORDS_DIRECTORY, stage_policy

P = ParamSpec("P")
R = TypeVar("R")


RETRY_DELAYS_SECONDS = [float(s) for s in os.environ.get("FEDPATCH_RETRY_DELAYS", "2,10").split(",") if s]
PERMANENT = (FedpatchError, FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, TypeError)


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help: not for bad data, a wrong configuration or a missing file."""
    try:
        state.result()
    except DownloadError:
        return True
    except PERMANENT:
        return False
    except Exception:
        return True
    return False


RETRIED: Any = {
    "retries": len(RETRY_DELAYS_SECONDS),
    "retry_delay_seconds": RETRY_DELAYS_SECONDS,
    "retry_condition_fn": is_transient,
}


def stage(name: str, *, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A Prefect task that persists its manifests as JSON and retries transient failures with growing delays."""
    return task(
        name=name,
        task_run_name=run_name,
        persist_result=True,
        result_serializer="json",
        cache_result_in_memory=False,
        **RETRIED,
    )


def step(name: str, *, run_name: str | None = None, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A Prefect task that is done at every try of a run.

    Without this Prefect serves it from the first try's record when the run is retried, where the flow persists its
    result, and what was mended in between is not seen.
    """
    return task(name=name, task_run_name=run_name, persist_result=False, **options)


def on_store(task_: Task[P, R], place: Place) -> Task[P, R]:
    """The task with its cache, results and locks on the place's store."""
    return task_.with_options(cache_policy=stage_policy(task_, place), result_storage=place.store / RECORDS_DIRECTORY)


def open_store(place: Place) -> FeatureStore:
    """The place's artifact store, with this process's threads and kernels set as the place says: for what computes."""
    limit_threads(place.threads)
    choose_cuda_kernels(deterministic=place.deterministic)
    return FeatureStore(place)
