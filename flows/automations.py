"""What the server does by itself: a run whose machine went silent is marked Crashed, so that it can be retried.

`python -m flows.automations` installs it on the server that PREFECT_API_URL names; again, it replaces what is there.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import cast

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

SILENT_RUNS = "fedpatch: silent runs are crashed"
HEARTBEAT = "prefect.flow-run.heartbeat"
NOT_RUNNING = (
    *("Completed", "CompletedPartial", "Failed", "Crashed", "Cancelled"),
    *("Cancelling", "Paused", "Suspended", "AwaitingRetry"),
)
SILENCE_SECONDS = 90.0  # heartbeats come every PREFECT_FLOWS_HEARTBEAT_FREQUENCY seconds, 30 in scripts/serve.sh


def silent_runs(silence_seconds: float = SILENCE_SECONDS) -> Automation:
    """The rule: after a heartbeat of a run, neither another one nor its end within `silence_seconds`: Crashed."""
    return Automation(
        name=SILENT_RUNS,
        description="A run that was neither heard of nor ended: its machine or its worker is gone. Retry goes on from "
        "the clients that are finished.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            for_each={"prefect.resource.id"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in NOT_RUNNING)},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"Nothing was heard of this run for {silence_seconds:.0f} s: its machine or worker is gone. "
                "Retry goes on from the clients that are finished.",
            )
        ],
    )


def install(silence_seconds: float = SILENCE_SECONDS) -> None:
    """Put the rule on the server, in the place of an older one."""
    rule = silent_runs(silence_seconds)
    try:
        old = cast(Automation, Automation.read(name=SILENT_RUNS))
    except ValueError:
        rule.create()
        return
    rule.id = old.id
    rule.update()


if __name__ == "__main__":
    install(float(sys.argv[1]) if len(sys.argv) > 1 else SILENCE_SECONDS)
    sys.stdout.write(f"installed: {SILENT_RUNS}\n")
