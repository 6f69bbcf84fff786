"""Housekeeping as a flow, so that a server can do it by cron."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from data_contracts.settings import default_store
from flows.steps.ends_with_worker import end_with_worker
from tasks.maintenance import prune_artifacts, prune_shared_place


@flow(name="store-prune", on_running=[end_with_worker])
def store_prune(
    store: Path | None = None,
    keep_days: float = 30,
    unfinished_days: float = 7,
    max_gb: float | None = None,
    shared_days: float | None = None,
) -> str:
    """Remove artifacts that no run of the last `keep_days` refers to and that nobody used for `unfinished_days`.

    With `shared_days`, on the coordinator's machine, runs in $FEDPATCH_EXCHANGE too that nobody wrote to for so long.
    """
    text = prune_artifacts((store or default_store()).expanduser().absolute(), keep_days, unfinished_days, max_gb)
    return text if shared_days is None else f"{text}\n{prune_shared_place(shared_days)}"
