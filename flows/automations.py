"""What the server does by itself: a run whose machine went silent is marked Crashed; a regression calls a webhook.

`python -m flows.automations` installs it on the server that PREFECT_API_URL names; again, it replaces what is
there. `--webhook URL` also has regressions of watched benchmarks sent to that address.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from typing import cast

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from flows.benchmark import REGRESSION_EVENT

REGRESSIONS = "fedpatch: a benchmark regressed"
REGRESSION_WEBHOOK = "fedpatch-regression"
_WEBHOOK_PAYLOAD = """{
  "benchmark": "{{ event.resource['prefect.resource.name'] }}",
  "directory": {{ event.payload.directory | tojson }},
  "compared_with": {{ event.payload.compared_with | tojson }},
  "regressions": {{ event.payload.regressions | tojson }}
}"""
SILENT_RUNS = "fedpatch: silent runs are crashed"
HEARTBEAT = "prefect.flow-run.heartbeat"
NOT_RUNNING = (
    *("Completed", "CompletedPartial", "CompletedRegressed", "Failed", "Crashed", "Cancelled"),
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


def regression_webhook(url: str) -> Automation:
    """The rule: a regression of a watched benchmark calls `url` with what regressed, as JSON by POST.

    Saves the webhook as a block on the server.
    """
    block = Webhook(method="POST", url=SecretStr(url))
    block_id = block.save(REGRESSION_WEBHOOK, overwrite=True)
    return Automation(
        name=REGRESSIONS,
        description="A watched benchmark is worse than its last good run.",
        trigger=EventTrigger(
            expect={REGRESSION_EVENT},
            match=ResourceSpecification({"prefect.resource.id": "fedpatch.benchmark.*"}),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[CallWebhook(block_document_id=block_id, payload=_WEBHOOK_PAYLOAD)],
    )


def install(rule: Automation) -> None:
    """Put the rule on the server, in the place of an older one of its name."""
    try:
        old = cast(Automation, Automation.read(name=rule.name))
    except ValueError:
        rule.create()
        return
    rule.id = old.id
    rule.update()


def main() -> None:
    """Install the rules."""
    parser = argparse.ArgumentParser(prog="python -m flows.automations", description=__doc__)
    parser.add_argument("silence_seconds", nargs="?", type=float, default=SILENCE_SECONDS)
    parser.add_argument("--webhook", metavar="URL", help="also call this address when a watched benchmark regresses")
    arguments = parser.parse_args()
    rules = [silent_runs(arguments.silence_seconds)]
    rules += [regression_webhook(arguments.webhook)] if arguments.webhook else []
    for rule in rules:
        install(rule)
        sys.stdout.write(f"installed: {rule.name}\n")


if __name__ == "__main__":
    main()
