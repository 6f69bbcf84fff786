"""Housekeeping as a flow, so that a server can do it by cron."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.running import default_store
from tasks.maintenance import prune_artifacts


@flow(name="store-prune")
def store_prune(
    store: Path | None = None, keep_days: float = 30, unfinished_days: float = 7, max_gb: float | None = None
) -> str:
    """Remove artifacts that no run of the last `keep_days` refers to and that nobody used for `unfinished_days`."""
    return prune_artifacts((store or default_store()).expanduser().absolute(), keep_days, unfinished_days, max_gb)
