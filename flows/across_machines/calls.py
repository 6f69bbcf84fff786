"""The coordinator's calls: one run of `station-client/<station>` each, started by name, awaited until a deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled

POLL_SECONDS = 2.0


def call_stations(
    stations: Sequence[str], parameters: dict[str, Any], *, key: str, is_retry: bool, deadline_s: float
) -> dict[str, str | None]:
    """Start the stations' runs, wait for all of them or the deadline; station -> why it did not deliver, or None.

    `key` makes the calls idempotent: called again, as when the coordinator is retried, each station's earlier run is
    taken up. Then (`is_retry`) one that failed is set to run once more; without that it would be returned for ever.
    A run that has not started by the deadline is cancelled.
    """
    log = get_run_logger()
    causes: dict[str, str | None] = {}
    waiting: dict[str, UUID] = {}
    with get_client(sync_client=True) as client:
        for station in stations:
            try:
                child: FlowRun = run_deployment(  # type: ignore[assignment]
                    f"station-client/{station}", parameters=parameters, timeout=0, idempotency_key=f"{key}:{station}"
                )
            except ObjectNotFound:
                causes[station] = f"there is no deployment station-client/{station}; deploy it"
                continue
            state = child.state
            if is_retry and state is not None and state.is_final() and not state.is_completed():
                log.info("station %s: its run was %s, and is run again", station, state.name)
                client.set_flow_run_state(child.id, AwaitingRetry(), force=True)
            waiting[station] = child.id
        deadline = time.monotonic() + deadline_s
        while waiting:
            overdue = time.monotonic() > deadline
            for station, child_id in list(waiting.items()):
                state = client.read_flow_run(child_id).state
                if state is not None and state.is_final():
                    causes[station] = None if state.is_completed() else state.message or state.name
                elif overdue and (state is None or state.is_scheduled()):
                    client.set_flow_run_state(child_id, Cancelled(message="the deadline passed"), force=True)
                    causes[station] = f"its run did not start within {deadline_s:g} s; is its worker up?"
                elif overdue:
                    causes[station] = f"its run was not finished within {deadline_s:g} s"
                else:
                    continue
                log.info("station %s: %s", station, causes[station] or "delivered")
                del waiting[station]
            if waiting:
                time.sleep(min(POLL_SECONDS, max(0.1, deadline - time.monotonic())))
    return {station: causes[station] for station in stations}
