"""Progress for people: the log, and a bar on the task run's page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, ArtifactFilterTaskRunId
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

Progress = Callable[[int, int], None]  # (done, total)
STEPS = 10


def progress_log(what: str, *, steps: int = STEPS) -> Progress:
    """A progress callback that logs to the task run about `steps` times."""
    log = get_run_logger()
    return _stepwise(lambda done, total: log.info("%s: %d of %d", what, done, total), steps)


def progress_bar(key: str, what: str, *, steps: int = STEPS) -> Progress:
    """A progress callback that logs, and moves a progress artifact of this task run in the Prefect UI.

    `key` names the artifact in the UI (made to fit: lower case, digits, hyphens). A server that cannot be reached costs
    the bar, never the task. A busy server may create a bar whose answer is lost, and then another: both end at 100 %.
    """
    log = get_run_logger()
    bar: UUID | None = None
    name = artifact_key(key)

    def move(done: int, total: int) -> None:
        nonlocal bar
        log.info("%s: %d of %d", what, done, total)
        percent = 100.0 * done / total if total else 100.0
        try:
            if bar is None:
                bar = cast(UUID, create_progress_artifact(percent, key=name, description=what))
            elif done < total:
                update_progress_artifact(bar, percent)
            if done >= total:
                _end_bars(name)
        except Exception as error:  # whatever it is, progress is not worth a failed task
            log.debug("no progress bar for %s: %s", what, error)

    return _stepwise(move, steps)


def _end_bars(key: str) -> None:
    """Set every progress artifact that this task run has under `key` to 100 %."""
    context = TaskRunContext.get()
    if context is None:
        return
    of_this_run = ArtifactFilter(
        key=ArtifactFilterKey(any_=[key]), task_run_id=ArtifactFilterTaskRunId(any_=[context.task_run.id])
    )
    with get_client(sync_client=True) as client:
        for artifact in client.read_artifacts(artifact_filter=of_this_run):
            if artifact.data != 100.0:
                update_progress_artifact(artifact.id, 100.0)


def artifact_key(name: str) -> str:
    """A name in the only letters that the Prefect UI takes for an artifact's key: a-z, 0-9 and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _stepwise(act: Progress, steps: int) -> Progress:
    """Call `act(done, total)` only when another of the `steps` parts is done; a count that starts again counts anew."""
    last = -1

    def report(done: int, total: int) -> None:
        nonlocal last
        step = done * steps // total if total else steps
        if step != last:
            last = step
            act(done, total)

    return report
