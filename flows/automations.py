"""What the server does by itself: a run whose machine went silent is marked Crashed; a webhook hears of what is wrong.

`python -m flows.automations` installs it on the server that PREFECT_API_URL names; again, it replaces what is
there. `--webhook URL` has runs that failed, crashed, are partial or late, and regressions, sent to that address, and
`--test` sends a message there. All of it concerns the runs of prefect.yaml's deployments, by their tag.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import timedelta
from typing import cast
from uuid import UUID

import httpx
from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from data_contracts.errors import ConfigError, ServerError
from data_contracts.numbers import require_number
from flows.benchmark import REGRESSED, REGRESSION_EVENT
from flows.connection import refuse_silent_server
from flows.steps.running import PARTIAL

TAG = "fedpatch"
OURS = ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"})
REGRESSIONS = "fedpatch: a benchmark regressed"
UNFINISHED = "fedpatch: a run failed, crashed or is partial"
LATE = "fedpatch: a run is late"
WEBHOOK = "fedpatch-regression"  # the block's name from before it heard of anything else
_REGRESSION_PAYLOAD = """{
  "text": {{ (event.resource['prefect.resource.name'] ~ ' regressed: '
              ~ event.payload.regressions | join('; ')) | tojson }},
  "benchmark": "{{ event.resource['prefect.resource.name'] }}",
  "directory": {{ event.payload.directory | tojson }},
  "compared_with": {{ event.payload.compared_with | tojson }},
  "regressions": {{ event.payload.regressions | tojson }}
}"""
_RUN_PAYLOAD = """{
  "text": {{ (flow.name ~ '/' ~ deployment.name ~ ' is ' ~ event.resource['prefect.state-name'] ~ ': '
              ~ event.resource['prefect.state-message'] ~ ' ' ~ (flow_run | ui_url)) | tojson }},
  "deployment": {{ (flow.name ~ '/' ~ deployment.name) | tojson }},
  "run": {{ flow_run.name | tojson }},
  "state": {{ event.resource['prefect.state-name'] | tojson }},
  "message": {{ event.resource['prefect.state-message'] | tojson }},
  "url": {{ flow_run | ui_url | tojson }}
}"""
_BAD_ENDS = [StateType.FAILED.value, StateType.CRASHED.value]
SILENT_RUNS = "fedpatch: silent runs are crashed"
HEARTBEAT = "prefect.flow-run.heartbeat"
NOT_RUNNING = (
    *("Completed", REGRESSED, PARTIAL, "Failed", "Crashed", "Cancelled"),
    *("Cancelling", "Paused", "Suspended", "AwaitingRetry"),
)
SILENCE_SECONDS = 90.0  # heartbeats come every PREFECT_FLOWS_HEARTBEAT_FREQUENCY seconds, 30 in prefect.yaml


def silent_runs(silence_seconds: float = SILENCE_SECONDS) -> Automation:
    """The rule: after a heartbeat of a run, neither another one nor its end within `silence_seconds`: Crashed.

    Prefect's runs send one every 180 s unless told otherwise: those of the deployments are, others are not concerned.
    """
    return Automation(
        name=SILENT_RUNS,
        description="A run that was neither heard of nor ended: its machine or its worker is gone. Retry goes on from "
        "the clients that are finished.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=OURS,
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


def webhook_rules(url: str) -> list[Automation]:
    """The rules: `url` gets a POST for each run that failed, crashed, is partial or late, and for each regression.

    Saves the webhook as a block on the server.
    """
    block = cast(UUID, Webhook(method="POST", url=SecretStr(url)).save(WEBHOOK, overwrite=True))
    return [
        _told(
            block,
            UNFINISHED,
            "A run of a deployment ended in a state of the type Failed or Crashed; Partial is one.",
            # by type, for a state with a name of its own has an event of its own
            ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*", "prefect.state-type": _BAD_ENDS}),
            "prefect.flow-run.*",
        ),
        _told(
            block,
            LATE,
            "A run of a deployment did not start when it should have: is its worker up?",
            ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            "prefect.flow-run.Late",
        ),
        Automation(
            name=REGRESSIONS,
            description="A watched benchmark is worse than its last good run.",
            trigger=EventTrigger(
                expect={REGRESSION_EVENT},
                match=ResourceSpecification({"prefect.resource.id": "fedpatch.benchmark.*"}),
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[CallWebhook(block_document_id=block, payload=_REGRESSION_PAYLOAD)],
        ),
    ]


def _told(block: UUID, name: str, description: str, match: ResourceSpecification, event: str) -> Automation:
    """A POST for each such event of a run of the deployments."""
    return Automation(
        name=name,
        description=description,
        trigger=EventTrigger(expect={event}, match=match, match_related=OURS, posture=Posture.Reactive, threshold=1),
        actions=[CallWebhook(block_document_id=block, payload=_RUN_PAYLOAD)],
    )


def send_test() -> int:
    """Post a message of the same form to the address that was installed, from here; returns the HTTP status.

    Raises ServerError where there is no address, or it cannot be reached, or refuses.
    """
    try:
        block = cast(Webhook, Webhook.load(WEBHOOK))
    except ValueError as error:
        raise ServerError("no address is installed yet: give it with --webhook URL") from error
    text = "fedpatch: a test, sent by python -m flows.automations --test; nothing is wrong"
    try:
        answer = asyncio.run(block.call({"text": text}))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServerError(f"the test was not sent: {type(error).__name__}: {error}") from error
    if answer.is_error:
        raise ServerError(f"the address refused the test: {answer.status_code} {answer.reason_phrase}")
    return answer.status_code


def is_told() -> bool:
    """Whether the server has an address that is told of runs that went wrong."""
    try:
        return bool(cast(Automation, Automation.read(name=UNFINISHED)).enabled)
    except ValueError:
        return False


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
    parser.add_argument(
        "--webhook",
        metavar="URL",
        help="also tell this address of failed, crashed, partial and late runs, and regressions",
    )
    parser.add_argument("--test", action="store_true", help="send a test message to the address that is installed")
    arguments = parser.parse_args()
    try:
        require_number("silence_seconds", arguments.silence_seconds, above=0)
        refuse_silent_server()
    except ConfigError as error:
        parser.error(str(error))
    except ServerError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    rules = [silent_runs(arguments.silence_seconds)]
    rules += webhook_rules(arguments.webhook) if arguments.webhook else []
    for rule in rules:
        install(rule)
        sys.stdout.write(f"installed: {rule.name}\n")
    if not is_told():
        sys.stdout.write("nobody is told of failures yet: python -m flows.automations --webhook URL\n")
    if arguments.test:
        try:
            sys.stdout.write(f"a test was sent; the address answered {send_test()}\n")
        except ServerError as error:
            parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
