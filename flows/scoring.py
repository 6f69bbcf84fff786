"""New images scored by a finished run, as a flow: the deployment score-images/on-demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Failed

from flows.steps.ends_with_worker import end_with_worker
from flows.steps.run_pages import scoring_title, show_failure
from flows.steps.running import partial_state
from tasks.inspection import score_paths


@flow(
    name="score-images",
    flow_run_name=scoring_title,
    on_running=[end_with_worker],
    on_failure=[show_failure],
    persist_result=True,
    result_serializer="json",
)
def score_images(
    model: Path,
    paths: list[Path],
    out: Path,
    category: str | None = None,
    explain: bool = False,
    target_false_alarm_rate: float | None = None,
) -> Any:
    """Decide for each image at `paths` (files or directories) whether it is good; page, tables, pictures go to `out`.

    `model` is a run directory. Refused images are listed with the reason, and the run is Partial; with nothing but
    refused images it fails.
    """
    decisions = score_paths(model, paths, out, category, explain, target_false_alarm_rate)
    create_table_artifact(
        key="decisions", table=decisions, description=f"Decisions by {model}; page and pictures in {out}."
    )
    refused = [one for one in decisions if one.get("reason")]
    if decisions and len(refused) == len(decisions):
        return Failed(message=f"all {len(refused)} images are refused; the first: {refused[0]['reason']}")
    text = json.dumps(decisions)
    if refused:
        return partial_state(f"{len(refused)} images are refused", text)
    return text
